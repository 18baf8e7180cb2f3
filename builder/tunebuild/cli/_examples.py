"""Two examples for each verb, which end its ``--help``."""

from __future__ import annotations

#: By verb: what follows ``tunebuild`` on the command line, and what that does.
EXAMPLES: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "init": (
        ("init support-bot", "start a new project"),
        ("init support-bot --for cpu", "for a machine and a CI runner without a GPU"),
    ),
    "import": (
        ("import axolotl.yml -o spec.yaml", "write a spec, and list what could not be carried over"),
        ("import notebook.ipynb --from unsloth --json", "print spec and lists for a script"),
    ),
    "validate": (
        ("validate spec.yaml", "check one spec"),
        ("validate a.yaml b.yaml --format sarif", "check several, for a code host"),
    ),
    "data": (
        ("data spec.yaml --samples 5", "show five rows as the model sees them"),
        ("data spec.yaml --html rows.html", "write plots and rejected rows to a page"),
    ),
    "plan": (
        ("plan spec.yaml", "show what a build would do on this machine"),
        ("plan spec.yaml --against git:origin/main", "say what a branch changes, and what that sets off"),
    ),
    "doctor": (
        ("doctor", "check this machine"),
        ("doctor spec.yaml --format json", "check whether it can build a spec, for a script"),
    ),
    "lock": (
        ("lock spec.yaml", "record the spec; pin data, model, packages and wheels"),
        ("lock overlays/*.yaml --update model", "one lock of all overlays, with a newer commit of the model"),
    ),
    "build": (
        ("build spec.yaml", "write the image to dist/ beside the spec"),
        ("build spec.yaml --locked --load", "build what the lock pins, load it into Docker or Podman"),
    ),
    "push": (
        ("push spec.yaml", "push to the repository that the spec names"),
        ("push dist/support-bot.tar registry.example.com/bot:2", "push an archive under another name"),
    ),
    "bundle": (
        ("bundle spec.yaml -o support-bot.tar", "image, other outputs, SBOMs and provenance in one file"),
        ("bundle spec.yaml -o support-bot.tar --sign-key key.pem", "signed as well"),
    ),
    "load": (
        ("load spec.yaml", "load what the spec builds"),
        ("load dist/support-bot.tar", "load an archive"),
    ),
    "deploy": (
        ("deploy spec.yaml --to kubernetes -o deploy", "write deploy/kubernetes.yaml for what was pushed"),
        ("deploy registry.example.com/bot:2 --to compose", "print a Compose file"),
    ),
    "launch": (
        ("launch spec.yaml --launcher slurm -o train.sbatch", "write a Slurm script"),
        ("launch spec.yaml", "print the torchrun command for each machine"),
    ),
    "train": (
        ("train spec.yaml --store /shared/store", "what a launcher runs in each process"),
        ("train spec.yaml --set tuning.epochs=1", "train for one epoch"),
    ),
    "render": (
        ("render spec.yaml -o context", "write the build context"),
        ("render spec.yaml -o context --set image.tag=2.0", "with another tag"),
    ),
    "export": (
        ("export spec.yaml -o exports --python exporter/bin/python", "write every export of the spec"),
        ("export spec.yaml -o exports --format awq", "write the AWQ export only"),
    ),
    "run": (
        ("run spec.yaml --port 8000", "serve until Ctrl-C"),
        ('run spec.yaml --port 0 --ask "How do I return an item?"', "ask one question and stop"),
    ),
    "chat": (
        ("chat spec.yaml", "build if needed, start the endpoint, and talk to it"),
        ("chat http://127.0.0.1:8080", "talk to an endpoint that is running"),
    ),
    "verify": (
        ("verify spec.yaml --min-exact 0.9", "build, start and ask the trained questions"),
        ("verify spec.yaml --url http://127.0.0.1:8080", "check an endpoint that is running"),
    ),
    "explain": (
        ("explain dist/support-bot.tar", "summarize an image"),
        ("explain dist/support-bot.tar --report report.html", "save its report"),
    ),
    "render-spec": (
        ("render-spec spec.yaml", "print the spec with its defaults"),
        ("render-spec spec.yaml --no-defaults --json", "print what differs from the defaults, as JSON"),
    ),
    "cache": (
        ("cache ls", "list finished stages"),
        ("cache gc --older-than 30d", "remove what was not used for 30 days"),
    ),
    "schema": (
        ("schema", "print the JSON Schema of a spec"),
        ("schema plan", "print that of 'plan --json'"),
    ),
}


def epilog_of(verb: str) -> str | None:
    """The examples as click prints them at the end of a verb's help, or None for an unknown verb."""
    if verb not in EXAMPLES:
        return None
    lines = [line for command, does in EXAMPLES[verb] for line in (f"  # {does}", f"  tunebuild {command}")]
    return "\n".join(["\b", "Examples:", *lines])
