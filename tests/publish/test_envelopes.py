"""A build's other outputs: what they hold, what they add to a registry, and who takes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.containers import need_runtime
from support.envelopes import BASE, Outputs, make_outputs
from support.registry import FaultyProxy
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.integrity import check_image
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Published, Release
from tunebuild.publish.stored import release_of
from tunebuild.registry import Options, Registries, Repository
from tunebuild.store import Silent

_MODEL = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "tokenizer.json",
}


@pytest.fixture
def outputs(inputs: ImageInputs) -> Outputs:
    return make_outputs(inputs)


def _repository(host: str) -> Repository:
    return Registries(Options(plain_http=True)).repository(host, "team/bot")


def _push(host: str, *contents: Content) -> Published:
    reference = ImageReference.parse(f"{host}/team/bot:v1")
    publisher = RegistryPublisher(_repository(host), reference, PushMemory(None))
    return publisher.publish(Release(contents), Silent())


def _unpacked(layout: Path, tag: str, target: Path) -> Path:
    if shutil.which("umoci") is None and not os.environ.get("CI"):
        pytest.skip("umoci is not installed")
    command = ["umoci", "raw", "unpack", "--rootless", "--image", f"{layout}:{tag}", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def test_the_weights_image_is_the_models_folder_of_the_runnable_one(outputs: Outputs, tmp_path: Path) -> None:
    write_layout(outputs.image, tmp_path / "layout", others=outputs.others)
    alone = _unpacked(tmp_path / "layout", "1-weights", tmp_path / "alone")
    whole = _unpacked(tmp_path / "layout", "1", tmp_path / "whole")
    assert {p.name for p in alone.iterdir()} == {"models"}
    assert {p.name for p in (alone / "models").iterdir()} == _MODEL
    for file in (alone / "models").iterdir():
        assert file.read_bytes() == (whole / "models" / file.name).read_bytes()
    # The bundle reaches the same files by links that lead nowhere else.
    assert (whole / "opt/tunebuild/bundle/model").resolve() == (whole / "models").resolve()
    assert (whole / "opt/tunebuild/bundle/prompt/tokenizer.json").read_bytes() == b'{"model":{}}'


@pytest.mark.parametrize("apart", [False, True])
def test_the_adapter_image_says_what_it_belongs_on(inputs: ImageInputs, apart: bool, tmp_path: Path) -> None:
    outputs = make_outputs(inputs, apart=apart)
    assert json.loads(outputs.adapter.manifest)["annotations"] == dict(BASE)
    layer = outputs.adapter.blobs[0].digest
    assert (layer in {x.digest for x in outputs.image.layers}) is apart
    write_layout(outputs.image, tmp_path / "layout", others=[outputs.adapter])
    alone = _unpacked(tmp_path / "layout", "1-adapter", tmp_path / "alone")
    names = {p.relative_to(alone).as_posix() for p in alone.rglob("*") if p.is_file()}
    assert names == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def test_a_modelpack_is_every_file_as_it_is(outputs: Outputs, inputs: ImageInputs) -> None:
    manifest = json.loads(outputs.modelpack.manifest)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    blobs = {blob.digest: b"".join(blob.read()) for blob in outputs.modelpack.blobs}
    named = {x["annotations"]["org.cncf.model.filepath"]: x for x in manifest["layers"]}
    assert set(named) == {*_MODEL, "README.md"}
    for file in (inputs.bundle / "model").iterdir():
        assert blobs[named[file.name]["digest"]] == file.read_bytes()
        assert named[file.name]["mediaType"].rpartition(".")[2] == "raw"
    config = json.loads(blobs[manifest["config"]["digest"]])
    assert config["modelfs"]["diffIds"] == [x["digest"] for x in manifest["layers"]]
    assert config["config"] == {
        "architecture": "transformer",
        "format": "safetensors",
        "paramSize": "640.1K",
        "precision": "bfloat16",
    }


def test_weights_and_adapter_add_next_to_nothing_to_a_registry_that_has_the_image(
    proxy: FaultyProxy, outputs: Outputs
) -> None:
    runnable = Content.of_image(outputs.image)
    _push(proxy.host, runnable)
    before = proxy.received
    _push(proxy.host, runnable, outputs.weights)
    assert proxy.received - before < 10_000
    before = proxy.received
    _push(proxy.host, runnable, outputs.weights, outputs.adapter)
    assert proxy.received - before < 10_000 + outputs.adapter.size
    before = proxy.received
    _push(proxy.host, runnable, outputs.modelpack)  # costs a copy of the weights, as the plan says
    assert 1_280_000 < proxy.received - before < 1_400_000
    repository = _repository(proxy.host)
    tags = {"v1", "v1-weights", "v1-adapter", "v1-modelpack"}
    assert set(repository.tags()) == tags
    for content in (runnable, *outputs.others):
        assert repository.manifest_digest(content.tag("v1")) == content.digest
    # The image's own tag moves last: whoever sees it finds the others.
    named = [r.path.rpartition("/")[2] for r in proxy.sent("PUT") if "/manifests/v1" in r.path]
    assert named[-1] == "v1"


def test_an_archive_of_all_outputs_is_pushed_whole(registry: str, outputs: Outputs, tmp_path: Path) -> None:
    write_archive(outputs.image, tmp_path / "all.tar", others=outputs.others)
    check_image(open_archive(tmp_path / "all.tar"))
    release, _ = release_of(tmp_path / "all.tar")
    assert [c.digest for c in release.contents] == [
        outputs.image.digest,
        *(c.digest for c in outputs.others),
    ]
    _push(registry, *release.contents)
    for content in outputs.others:
        assert _repository(registry).manifest_digest(content.tag("v1")) == content.digest


@pytest.mark.runtime
def test_other_programs_take_every_image(registry: str, outputs: Outputs, tmp_path: Path) -> None:
    podman = need_runtime("podman")
    _push(registry, Content.of_image(outputs.image), *outputs.others)
    for content in outputs.others:
        source = f"docker://{registry}/team/bot:{content.tag('v1')}"
        copy = ["skopeo", "copy", "--preserve-digests", "--src-tls-verify=false"]
        done = subprocess.run(
            [*copy, source, f"oci:{tmp_path}/{content.output}:x"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        index = json.loads((tmp_path / content.output / "index.json").read_text())
        assert index["manifests"][0]["digest"] == content.digest
    for name in ("weights", "adapter"):
        reference = ImageReference.parse(f"{registry}/team/bot:v1-{name}")
        pull = ["podman", "pull", "--quiet", "--tls-verify=false", str(reference)]
        subprocess.run(pull, check=True, capture_output=True)
        podman.remove(reference)
        subprocess.run(["docker", "pull", "--quiet", str(reference)], check=True, capture_output=True)
        need_runtime("docker").remove(reference)
