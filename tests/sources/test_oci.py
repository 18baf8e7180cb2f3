"""Base models in registries: every form of ours can be trained on again, pinned by digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.envelopes import Outputs, make_outputs
from support.images import image, inputs, make_inputs
from support.registry import docker_registry
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs
from tunebuild.models.base_model import find_base_model, locked_model
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Release
from tunebuild.registry import Options, Registries
from tunebuild.spec.model import ModelSpec
from tunebuild.store import Silent, digest_file

__all__ = ["image", "inputs", "make_inputs"]


@pytest.fixture
def outputs(inputs: ImageInputs) -> Outputs:
    return make_outputs(inputs, size=2560)


@pytest.fixture
def host(outputs: Outputs, tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path / "registry") as host:
        _push(host, outputs)
        yield host


def _push(host: str, outputs: Outputs) -> None:
    repository = Registries(Options(plain_http=True)).repository(host, "team/bot")
    reference = ImageReference.parse(f"{host}/team/bot:v1")
    contents = (Content.of_image(outputs.image), *outputs.others)
    RegistryPublisher(repository, reference, PushMemory(None)).publish(Release(contents), Silent())


@pytest.mark.parametrize("tag", ["v1", "v1-weights", "v1-modelpack"])
def test_every_output_with_weights_is_a_base_once_it_is_locked(
    host: str, outputs: Outputs, inputs: ImageInputs, tmp_path: Path, tag: str
) -> None:
    spec, cache = ModelSpec(base=f"oci://{host}/team/bot:{tag}"), tmp_path / "cache"
    with pytest.raises(TunebuildError, match="not pinned to a digest"):
        find_base_model(spec, tmp_path, cache, digest_file)
    lock = locked_model(spec, tmp_path, cache, digest_file, None)
    digests = {"v1": outputs.image.digest, "v1-weights": outputs.weights.digest}
    assert lock.commit == digests.get(tag, outputs.modelpack.digest)
    found = find_base_model(spec, tmp_path, cache, digest_file, lock)
    assert {f.path: f.digest for f in found.files} == lock.files
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        assert (found.directory / name).read_bytes() == (inputs.bundle / "model" / name).read_bytes()
    # A tag that moves afterwards moves nothing here.
    assert locked_model(spec, tmp_path, cache, digest_file, lock) == lock
    pinned = ModelSpec(base=f"oci://{host}/team/bot@{lock.commit}")
    assert find_base_model(pinned, tmp_path, cache, digest_file).directory == found.directory


def test_a_changed_file_and_what_is_no_model_are_refused(host: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    spec = ModelSpec(base=f"oci://{host}/team/bot:v1-weights")
    lock = locked_model(spec, tmp_path, cache, digest_file, None)
    file = find_base_model(spec, tmp_path, cache, digest_file, lock).directory / "config.json"
    file.write_text("{}")
    with pytest.raises(TunebuildError, match="is not what the lock names"):
        find_base_model(spec, tmp_path, cache, digest_file, lock)
    for name, said in (("bot:v1-adapter", "holds no model"), ("bot:nothing", "there is no oci://")):
        with pytest.raises(TunebuildError, match=said):
            locked_model(ModelSpec(base=f"oci://{host}/team/{name}"), tmp_path, cache, digest_file, None)
