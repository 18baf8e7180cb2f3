"""A small synthetic image: a base with the awkward entries of a real one, and a bundle of a megabyte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import tokenizers as families
from tunebuild.containers.find import find_container_runtime
from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.data.prompt_source import build_renderer
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.layer import layer_of_blob
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.oci.tar import TarWriter
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.prompt import save_prompt
from tunebuild.spec.model import PromptSpec


def _write_bundle(root: Path, name: str) -> Path:
    files = {
        "bundle.json": json.dumps({"name": name}).encode(),
        "checks.jsonl": b'{"messages":[{"role":"user","content":"Hi"}],"expected":"Hello"}\n',
        "prompt/prompt.json": b"{}",
        "prompt/golden.json": b"[]",
        "model/config.json": b'{"model_type":"llama"}',
        "model/model-00001-of-00002.safetensors": bytes(range(256)) * 5000,
        "model/model-00002-of-00002.safetensors": b"second",
    }
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)  # as transformers leaves its weights
    return root


def _write_base(path: Path, name: str) -> ImageInputs:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        writer = TarWriter(sink)
        writer.symlink("bin", "usr/bin")
        writer.data("etc/passwd", b"nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n")
        writer.directory("home/nonroot", 0o700)
        writer.directory("opt/tunebuild/site-packages")
        writer.directory("tmp", 0o1777)
        writer.data("usr/bin/tool", b"#!", 0o755)
        writer.data("usr/share/image", name.encode())  # an image of another name shares no layer
        writer.data("usr/share/" + "long-name/" * 12 + "ü", b"x")
        tar = writer.finish()
    base = layer_of_blob(path, tar.digest, tar.size, name="base", created_by="synthetic base")
    return ImageInputs(ImageReference.parse(f"tunebuild-test/{name}:1"), path.parent / "bundle", (base,))


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., ImageInputs]:
    """Writes bundle and base below a directory; equal wherever that is."""

    def make(root: Path, name: str = "demo") -> ImageInputs:
        _write_bundle(root / "bundle", name)
        return _write_base(root / "base.tar", name)

    return make


@pytest.fixture
def inputs(tmp_path: Path, make_inputs: Callable[..., ImageInputs]) -> ImageInputs:
    return make_inputs(tmp_path / "in")


def save_real_prompt(inputs: ImageInputs, base: Path) -> Path:
    """Give the bundle a prompt contract that loads, over a small tokenizer, with nothing to ask.

    Returns:
        The bundle's ``prompt`` directory.
    """
    families.save(families.byte_level(), base)
    prompt = inputs.bundle / "prompt"
    shutil.rmtree(prompt)
    save_prompt(prompt, build_renderer(PromptSpec(), base, base), base)
    (prompt / "checks.jsonl").write_text("")
    return prompt


@pytest.fixture
def image(inputs: ImageInputs) -> Image:
    return assemble(plan_image(inputs))


@pytest.fixture(scope="session", params=["docker", "podman"])
def runtime(request: pytest.FixtureRequest) -> ContainerRuntime:
    """Each runtime in turn. On CI both must be there; elsewhere a missing one is skipped."""
    try:
        return find_container_runtime(request.param)
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def loaded(runtime: ContainerRuntime, image: Image) -> Iterator[ImageReference]:
    """The synthetic image, in the runtime for the time of a test."""
    runtime.load(image)
    yield image.reference
    runtime.remove(image.reference)
