"""``tunebuild verify``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import NEW_FILE, lock_option, refuse_spec_options, set_option, store_option
from tunebuild.cli._progress import Reporter
from tunebuild.cli._registry import registry_options
from tunebuild.cli._serving import endpoint, endpoint_runtime_option, ready_option
from tunebuild.client.checks import Contract, read_contract
from tunebuild.client.conduct import Finding, Server, begin_answer, check_conduct, end_answer
from tunebuild.client.endpoint import Answer, ask
from tunebuild.client.findings import save_json, save_junit
from tunebuild.data.privacy import mask
from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import require
from tunebuild.grammar import counted, listed

if TYPE_CHECKING:
    from tunebuild.image.oci.reading import StoredImage


@click.command("verify")
@click.argument("spec", metavar="SPEC|ARCHIVE|REF", type=click.Path(path_type=Path))
@click.option("--url", metavar="URL", help="Ask this running endpoint instead of starting one.")
@click.option(
    "--min-exact",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of trained questions that must be answered word for word.",
)
@click.option("--offline", is_flag=True, help="Check the image only; start and ask nothing.")
@click.option("--overload", is_flag=True, help="With --url: ask more at once than the endpoint takes, too.")
@click.option("--junit", type=NEW_FILE, metavar="FILE", help="Write what was found as JUnit, for CI.")
@click.option("--json", "as_json", type=NEW_FILE, metavar="FILE", help="Write what was found as JSON.")
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Public key (PEM) that image and provenance must be signed with.",
)
@registry_options
@endpoint_runtime_option
@ready_option
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    url: str | None,
    min_exact: float,
    offline: bool,
    overload: bool,
    junit: Path | None,
    as_json: Path | None,
    key: Path | None,
    plain_http: bool,
    ca_file: Path | None,
    runtime: str,
    ready_within: float,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Prove a build: a SPEC, an ARCHIVE that 'build' or 'bundle' wrote, or REF, an image in a registry.

    A spec is built first where it is not built yet, as 'run' does; with --url only its rows are prepared.
    Checks every byte of an archive, walks from the image to signature, provenance, spec, SBOMs, rows and
    figures, reproduces the golden prompts in the image, then asks the trained questions at temperature 0 and
    compares answers and prompt lengths. Then it tries the API's contract, more requests than the endpoint
    takes, a client that hangs up, and, where it started the endpoint itself, a SIGTERM. Exit 1 if anything
    differs. With --offline nothing is started. Of REF, only layers of texts are fetched; those of weights and
    packages are checked by whoever pulls them. $TUNEBUILD_API_KEY is sent where it is set.
    """
    with TemporaryDirectory(prefix="tunebuild-") as directory:
        built = None
        options = (plain_http, ca_file)
        if stored := _stored(spec, options, Path(directory)):
            refuse_spec_options(spec, overrides, lock_file)
            prompt = _unpack(stored, Path(directory) / "prompt", key)
        elif key is not None:
            raise fail("not-signed", "a spec has no signature", "give an archive or what was pushed")
        else:
            require("plan" if url else "train", what="'verify' of a spec")
            from tunebuild.build.run import build, ensure
            from tunebuild.cli._building import opened

            with opened(spec, store, overrides, lock_file=lock_file) as (pipeline, reporter):
                if url:
                    prompt = ensure(pipeline, reporter, pipeline.data()).path("prompt")
                else:
                    built = build(pipeline, reporter)
                    prompt = built.parts.data.path("prompt")
        contract = read_contract(prompt)
    echo(f"  prompt  {contract.vectors} golden vectors reproduce", err=True)
    log = _Log()
    log.note(Finding("parity", "golden vectors reproduce in the image", detail=str(contract.vectors)))
    if url:
        root = url.rstrip("/").removesuffix("/v1")
        with log.saved(spec.name, junit, as_json):
            _question(root, contract, min_exact, log)
            _conduct(root, log, overload=overload)
    elif built and not offline:
        with log.saved(spec.name, junit, as_json):
            with endpoint(built, runtime, "127.0.0.1", 0, ready_within, quiet=True, tagged=False) as running:
                echo(
                    f"  ready   {running.url} after {running.ready_after:.1f} s ({running.runner})", err=True
                )
                _question(running.url, contract, min_exact, log)
                _conduct(running.url, log, overload=True)
                begun = begin_answer(Server(running.url), 32)
            # The endpoint has been told to end by now, and may only end once this answer is whole.
            log.note(
                Finding("drain", "an answer that has begun is finished after SIGTERM", end_answer(*begun))
            )
    elif min_exact:
        message = "nothing was asked: an archive is only read"
        raise fail("not-asked", message, "start it and give its --url, or verify the spec")
    else:
        echo("  answers not asked: start it and give its --url for that", err=True)
        with log.saved(spec.name, junit, as_json):
            pass


@dataclass
class _Log:
    """What was found so far."""

    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def note(self, finding: Finding) -> None:
        """Keep it."""
        self.findings.append(finding)

    @contextmanager
    def saved(self, name: str, junit: Path | None, as_json: Path | None) -> Iterator[None]:
        """Write the files at the end, whatever came, and fail if something does not hold."""
        try:
            yield
        finally:
            if junit:
                save_junit(junit, name, self.findings)
            if as_json:
                save_json(as_json, name, self.findings, self.figures)
        if wrong := [finding for finding in self.findings if finding.problem]:
            lines = listed([f"{one.group}: {one.name}: {one.problem}" for one in wrong[:10]], len(wrong))
            raise fail("not-verified", f"{counted(len(wrong), 'check')} failed{lines}")


def _conduct(url: str, log: _Log, *, overload: bool) -> None:
    """How the endpoint conducts itself, line by line."""
    server = Server(url, os.environ.get("TUNEBUILD_API_KEY", ""))
    for finding in check_conduct(server, overload=overload):
        log.note(finding)
        said = finding.problem or finding.detail
        mark = "FAILED  " if finding.problem else ""
        echo(f"  {finding.group:<8}{mark}{finding.name}" + (f" ({said})" if said else ""), err=True)


def _stored(source: Path, options: tuple[bool, Path | None], scratch: Path) -> StoredImage | None:
    """An image on disk or in a registry; ``None`` for a spec."""
    from tunebuild.image.oci.reading import open_archive

    if source.suffix == ".tar" or source.is_dir():
        return open_archive(source)
    if source.exists() or source.suffix in (".yaml", ".yml") or len(source.parts) < 2:
        return None
    from tunebuild.image.oci.reference import ImageReference

    require("image", what="'verify' of an image in a registry")
    from tunebuild.publish.remote import open_remote
    from tunebuild.registry import Options, Registries

    reference = ImageReference.parse(str(source))
    registries = Registries(Options.of_machine(plain_http=options[0], ca_file=options[1]))
    fetched = scratch / "fetched"
    fetched.mkdir()
    return open_remote(registries.repository(reference.registry, reference.path), reference, fetched)


def _unpack(image: StoredImage, directory: Path, key: Path | None) -> Path:
    """Check an image's bytes and links, and take out its prompt directory."""
    from tunebuild.image.oci.integrity import check_image
    from tunebuild.image.plan import BUNDLE

    if key:
        require("image", what="checking a signature")
    from tunebuild.publish.trust.signing import Verifier
    from tunebuild.publish.trust.walk import Walk

    if image.place.exists():
        check_image(image)
        echo(f"  image   {image.digest}: every byte is what its digest says", err=True)
    else:
        echo(f"  image   {image.digest} in the registry", err=True)
    for name, text in Walk(image, Verifier.load(key) if key else None).run():
        echo(f"  {name:<7} {text}", err=True)
    image.extract(f"{BUNDLE}/prompt", directory)
    return directory


def _question(url: str, contract: Contract, min_exact: float, log: _Log) -> None:
    """Ask everything and judge."""
    if not contract.checks:
        message = "there is nothing to ask: no trained row is one question and its answer"
        if min_exact:
            raise fail("no-checks", message, "leave out --min-exact, or train on questions, too")
        echo(f"  answers {message}", err=True)
        return
    with Reporter() as reporter:
        progress = reporter("answers")
        answers = ask(url, contract.checks, lambda n: progress.step(n, len(contract.checks)))
        exact = sum(a.exact for a in answers)
        seconds = median(a.seconds for a in answers)
        progress.say(f"{exact} of {len(answers)} word for word, median {seconds * 1000:.0f} ms")
    apart = max(abs(a.prompt_tokens - a.check.prompt_tokens) for a in answers)
    log.figures |= {
        "answers": len(answers),
        "exact": exact,
        "median_seconds": round(seconds, 4),
        "largest_prompt_deviation_tokens": apart,
    }
    parity = f"{apart} tokens apart at most" if apart else ""
    log.note(
        Finding("parity", "prompts have the length of the contract's", parity, f"{len(answers)} prompts")
    )
    low = exact / len(answers) < min_exact
    said = f"{exact} of {len(answers)} are word for word"
    log.note(Finding("answers", "trained questions are answered as trained", said if low else "", said))
    if unlike := next((a for a in answers if not a.same_prompt), None):
        raise fail(
            "prompt-parity",
            f"the endpoint counted {unlike.prompt_tokens} prompt tokens where the contract has "
            f"{unlike.check.prompt_tokens}: {_question_of(unlike)}",
            "it is another image, or something between you and it changes requests",
        )
    if low:
        wrong = [a for a in answers if not a.exact][:3]
        shown = "".join(
            f"\n  {_question_of(a)}\n    trained  {_masked(a.check.expected)}\n    answered {_masked(a.text)}"
            for a in wrong
        )
        raise fail("not-exact", f"{exact} of {len(answers)} answers are word for word{shown}")


def _question_of(answer: Answer) -> str:
    return _masked(str(answer.check.messages[-1]["content"]))


def _masked(text: str) -> str:
    """Rows are shown with their secrets masked, or not at all where nothing is installed to find those."""
    try:
        return mask(text)
    except TunebuildError as error:
        return f"(not shown: {error})"
