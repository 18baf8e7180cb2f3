"""What goes into the image, in which layer and in which order. Reads names, sizes and modes, never contents.

Order is by how rarely a thing changes: base, Python packages, weights, what belongs to them, the adapter if
it is apart, then the app with the prompt and the settings. An edit of the prompt or of the server replaces
the last layers only, which are kilobytes.

The model is a folder of its own, ``/models``, as transformers and vLLM load it. So its layers alone are an
image that Kubernetes mounts beside a server of one's own choice, and the whole is one as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tunebuild
from tunebuild.errors import fail
from tunebuild.image.oci.layer import Entry, FileRange, FilesLayer, Layer, Symlink, layer_of_files
from tunebuild.image.oci.manifest import (
    Healthcheck,
    Image,
    Platform,
    Runtime,
    Variables,
    make_image,
    merge_variables,
)
from tunebuild.image.oci.reference import ImageReference

HOME = "opt/tunebuild"
"""Everything of ours is below this path of the image."""

BUNDLE = f"{HOME}/bundle"
MODELS = "models"
"""The model as others load it: weights, configuration, tokenizer and chat template."""

MODEL_FILES = "model files"
CHAT = "chat template"
"""Layers of :data:`MODELS` besides the weights: what comes with them, and what prompt and serving decide."""

ADAPTER = "adapter"
"""An adapter that is not merged, in PEFT's format. Also the name of its layer."""

TEXT_LAYERS = (
    "tunebuild: model files",
    "tunebuild: model files of the prompt",
    "tunebuild: server, prompt and settings",
)
"""What the history says of the layers without weights and packages; all that is checked is in them."""

PROVENANCE = "provenance.json"
"""Below ``build/`` of the bundle: the spec, each stage's own inputs, names of files."""
APP = f"{HOME}/app"
SITE_PACKAGES = f"{HOME}/site-packages"
"""Where the layers of Python packages put them."""

_PYTHON = "/usr/bin/python3"
HEALTHCHECK = Healthcheck((_PYTHON, "-S", "-I", f"/{APP}/probe.py"))
"""The image's own. Some tools lose it when they push, since OCI's config has no place for it."""
VERSION_LABEL = "org.tunebuild.version"
WEIGHTS_SUFFIX = ".safetensors"
ADAPTER_LAYER = "tunebuild: adapter"
"""What the history says of an adapter's layer; of weights it says their names."""
SCRATCH = "/dev/shm"  # noqa: S108
"""The one place that is writable under a read-only root without asking for a tmpfs; torch needs one."""
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_RUN_TIME = ("__init__.py", "py.typed", "errors.py", "heavy_imports.py", "printable.py", "prompt", "serve")
_MAX_WEIGHT_LAYERS = 100  # overlay file systems stop at 127 layers, base and packages included

_ENVIRONMENT: Variables = (
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LANG", "C.UTF-8"),
    ("PYTHONPATH", f"/{APP}:/{SITE_PACKAGES}"),
    ("PYTHONUNBUFFERED", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("TMPDIR", SCRATCH),
    ("HOME", "/home/nonroot"),
    ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
    ("TUNEBUILD_HOST", "0.0.0.0"),  # noqa: S104
    # Threads that wait for others spin otherwise, on a core that what they wait for may need. How many there
    # are is the server's to say, by the cores that are free.
    ("OMP_WAIT_POLICY", "passive"),
)

# What NVIDIA's container toolkit reads, and where it or another runtime may put the driver's libraries.
_CUDA_ENVIRONMENT: Variables = (
    ("NVIDIA_VISIBLE_DEVICES", "all"),
    ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
    ("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64:/usr/local/nvidia/lib"),
)


def device_environment(device: str) -> Variables:
    """Variables of an image for a device."""
    return _CUDA_ENVIRONMENT if device == "cuda" else ()


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What an image is made of.

    Attributes:
        reference: the image's name.
        bundle: directory with ``bundle.json``, ``prompt/``, ``model/``, ``checks.jsonl`` and perhaps
            ``adapter/``, ``tokenizer/`` and ``chat/``, which go to the model's folder; symlinks are followed.
        layers: finished layers in order: the base, then the Python packages.
        port: where the server listens.
        env: variables that are added or win, by name.
        labels: labels that are added or win, by name.
        base_env: variables of the base image, kept unless named again.
    """

    reference: ImageReference
    bundle: Path
    layers: tuple[Layer, ...]
    port: int = 8080
    env: Variables = ()
    labels: Variables = ()
    base_env: Variables = ()
    platform: Platform = field(default_factory=Platform)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The image before its files have been read. Both back ends work from this value."""

    reference: ImageReference
    runtime: Runtime
    layers: tuple[Layer | FilesLayer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


def plan_image(inputs: ImageInputs) -> ImagePlan:
    """Lay out the image.

    Raises:
        TunebuildError: ``bundle-incomplete``, ``pickled-weights`` or ``bad-variable``.
    """
    files = tuple(_files_below(inputs.bundle))
    _check_bundle(inputs.bundle, files)
    folders = ("adapter", "model", "tokenizer", "chat")
    parts = {name: [f for f in files if f.is_relative_to(inputs.bundle / name)] for name in folders}
    taken = {file for part in parts.values() for file in part}
    template = [file for file in parts["tokenizer"] if file.name == "chat_template.jinja"]
    chat = {file.name: file for file in (*parts["chat"], *template)}
    model = {file.name: file for file in (*parts["model"], *parts["tokenizer"]) if file.name not in chat}
    weights = [file for file in parts["model"] if file.suffix == WEIGHTS_SUFFIX]
    rest = [file for file in files if file not in taken]
    layers: list[Layer | FilesLayer] = [*inputs.layers, *weight_layers(weights)]
    with_it = [file for file in model.values() if file not in weights]
    layers.append(FilesLayer(MODEL_FILES, TEXT_LAYERS[0], tuple(map(_model_entry, with_it))))
    if chat:
        entries = tuple(map(_model_entry, chat.values()))
        layers.append(FilesLayer(CHAT, TEXT_LAYERS[1], entries))
    links = [Entry(f"{BUNDLE}/model", Symlink(f"../../../{MODELS}"))]
    if adapter := parts["adapter"]:
        layers.append(adapter_layer(adapter))
        links.append(Entry(f"{BUNDLE}/adapter", Symlink(f"../../../{ADAPTER}")))
    shared = model.get("tokenizer.json")
    app = (
        *app_entries(),
        *links,
        *(_prompt_tokenizer(entry) if shared else entry for entry in _bundle_entries(inputs.bundle, rest)),
    )
    layers.append(FilesLayer("app", TEXT_LAYERS[2], app))
    return ImagePlan(inputs.reference, _runtime(inputs), tuple(layers))


def assemble(plan: ImagePlan) -> Image:
    """Read the planned files once, to learn their layers' digests. Writes nothing."""
    layers = tuple(layer if isinstance(layer, Layer) else layer_of_files(layer) for layer in plan.layers)
    return make_image(plan.reference, plan.runtime, layers)


def _runtime(inputs: ImageInputs) -> Runtime:
    labels: Variables = (
        ("org.opencontainers.image.title", inputs.reference.repository.rpartition("/")[2]),
        ("org.opencontainers.image.version", inputs.reference.tag),
        ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
        (VERSION_LABEL, tunebuild.__version__),
    )
    runtime = Runtime(
        entrypoint=(_PYTHON, f"/{APP}/start.py", f"/{BUNDLE}"),
        env=merge_variables(
            inputs.base_env, _ENVIRONMENT, (("TUNEBUILD_PORT", str(inputs.port)),), inputs.env
        ),
        labels=merge_variables(labels, inputs.labels),
        port=inputs.port,
        working_dir=f"/{HOME}",
        healthcheck=HEALTHCHECK,
        platform=inputs.platform,
    )
    for name, value in (*runtime.env, *runtime.labels):
        # A Dockerfile cannot carry line breaks in a value, and the two back ends must agree.
        if "=" in name or not name or not (name + value).isprintable():
            hint = "use printable characters on one line, and no '=' in the name"
            raise fail("bad-variable", f"the image cannot carry the variable or label {name!r}", hint)
    return runtime


def app_entries() -> Iterator[Entry]:
    """The program that the container runs: the server, what it imports of ours, and how it is started."""
    package = Path(tunebuild.__file__).parent
    start = Path(__file__).with_name("entrypoint")
    yield Entry.of_file(f"{APP}/start.py", start / "start.py")
    yield Entry.of_file(f"{APP}/probe.py", start / "probe.py")
    for name in _RUN_TIME:
        source = package / name
        for file in _files_below(source) if source.is_dir() else [source]:
            if "__pycache__" not in file.parts:
                yield Entry.of_file(f"{APP}/tunebuild/{file.relative_to(package).as_posix()}", file)


def weight_layers(weights: list[Path]) -> Iterator[FilesLayer]:
    """One layer a shard, so that a shard shared with another image is stored and sent once.

    Args:
        weights: files, in order.
    """
    per_layer = -(-len(weights) // _MAX_WEIGHT_LAYERS) or 1
    groups = [weights[i : i + per_layer] for i in range(0, len(weights), per_layer)]
    for number, group in enumerate(groups, 1):
        name = f"weights {number}/{len(groups)}"
        created_by = f"tunebuild: {', '.join(file.name for file in group)}"
        yield FilesLayer(name, created_by, tuple(map(_model_entry, group)))


def adapter_layer(files: list[Path]) -> FilesLayer:
    """The layer of an adapter's files."""
    entries = tuple(Entry(f"{ADAPTER}/{file.name}", FileRange.whole(file), 0o644) for file in files)
    return FilesLayer(ADAPTER, ADAPTER_LAYER, entries)


def is_model_layer(name: str) -> bool:
    """Whether a layer belongs to the model's folder."""
    return name.startswith("weights ") or name in (MODEL_FILES, CHAT)


def _model_entry(file: Path) -> Entry:
    # Always 0644: libraries write weights as 0600, which another user in the container could not read.
    return Entry(f"{MODELS}/{file.name}", FileRange.whole(file), 0o644)


def _prompt_tokenizer(entry: Entry) -> Entry:
    """The prompt's tokenizer is the model's, byte for byte, and has megabytes: it is in the image once."""
    if entry.name == f"{BUNDLE}/prompt/tokenizer.json":
        return Entry(entry.name, Symlink(f"../../../../{MODELS}/tokenizer.json"))
    return entry


def _bundle_entries(bundle: Path, files: list[Path]) -> tuple[Entry, ...]:
    return tuple(
        Entry(f"{BUNDLE}/{file.relative_to(bundle).as_posix()}", FileRange.whole(file), 0o644)
        for file in files
    )


def _files_below(root: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        yield from (Path(directory) / name for name in sorted(names))


def _check_bundle(bundle: Path, files: tuple[Path, ...]) -> None:
    present = {file.relative_to(bundle).as_posix() for file in files}
    for name in ("bundle.json", "prompt/prompt.json", "model/config.json"):
        if name not in present:
            hint = "this is what the merge leaves behind; build again"
            raise fail("bundle-incomplete", f"{bundle} has no {name}", hint)
    if not any(name.startswith("model/") and name.endswith(WEIGHTS_SUFFIX) for name in present):
        raise fail("bundle-incomplete", f"{bundle} has no weights (model/*{WEIGHTS_SUFFIX})", "build again")
    for name in sorted(present):
        if name.endswith(_PICKLED):
            hint = "an image carries weights as safetensors only; remove or convert it"
            raise fail("pickled-weights", f"{bundle / name} may run code when it is loaded", hint)
