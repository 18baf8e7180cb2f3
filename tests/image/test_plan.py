"""The layout of an image, decided without reading a byte of its files."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.image.oci.layer import Entry, FilesLayer, layer_of_files
from tunebuild.image.plan import ImageInputs, assemble, plan_image


def _names(layer: object) -> list[str]:
    assert isinstance(layer, FilesLayer)
    return [entry.name for entry in layer.entries]


def test_layers_go_from_what_changes_least_to_what_changes_most(inputs: ImageInputs) -> None:
    plan = plan_image(inputs)
    assert [layer.name for layer in plan.layers] == [
        "base",
        "weights 1/2",
        "weights 2/2",
        "model files",
        "app",
    ]
    assert _names(plan.layers[1]) == ["models/model-00001-of-00002.safetensors"]
    app = _names(plan.layers[-1])
    assert "opt/tunebuild/bundle/prompt/golden.json" in app
    assert "opt/tunebuild/bundle/checks.jsonl" in app
    assert "opt/tunebuild/app/tunebuild/prompt/renderer.py" in app
    assert not [name for name in app if "__pycache__" in name or name.endswith(".safetensors")]
    assert not [name for name in app if "/tunebuild/train/" in name or "/tunebuild/image/" in name]


def test_an_adapter_is_a_layer_between_weights_and_app(inputs: ImageInputs) -> None:
    before = assemble(plan_image(inputs))
    (inputs.bundle / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (inputs.bundle / "adapter" / name).write_bytes(b"{}")
    plan = plan_image(inputs)
    names = [layer.name for layer in plan.layers]
    assert names == ["base", "weights 1/2", "weights 2/2", "model files", "adapter", "app"]
    assert _names(plan.layers[4]) == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    assert "opt/tunebuild/bundle/adapter" in _names(plan.layers[-1])
    after = assemble(plan)
    assert [x.digest for x in before.layers[:-1]] == [x.digest for x in after.layers[:-2]]


def test_an_edit_of_the_prompt_changes_the_last_layer_only(inputs: ImageInputs) -> None:
    before = assemble(plan_image(inputs))
    (inputs.bundle / "prompt" / "prompt.json").write_text('{"system": "Be brief."}')
    after = assemble(plan_image(inputs))
    assert before.layers[:-1] == after.layers[:-1]
    assert before.layers[-1].digest != after.layers[-1].digest
    assert before.layers[-1].size < 1_000_000


def test_place_umask_and_time_zone_do_not_change_the_digest(
    inputs: ImageInputs,
    tmp_path: Path,
    make_inputs: Callable[[Path], ImageInputs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = assemble(plan_image(inputs))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    before = os.umask(0o077)
    try:
        second = assemble(plan_image(make_inputs(tmp_path / "other place")))
    finally:
        os.umask(before)
        monkeypatch.undo()
        time.tzset()
    assert first.digest == second.digest
    assert first.config == second.config


def test_weights_are_readable_by_the_containers_user(inputs: ImageInputs) -> None:
    layer = plan_image(inputs).layers[1]
    assert isinstance(layer, FilesLayer)
    assert [entry.mode for entry in layer.entries] == [0o644]


def test_links_into_a_store_are_followed(inputs: ImageInputs, tmp_path: Path) -> None:
    before = assemble(plan_image(inputs)).digest
    (inputs.bundle / "model").rename(tmp_path / "elsewhere")
    (inputs.bundle / "model").symlink_to(tmp_path / "elsewhere")
    assert assemble(plan_image(inputs)).digest == before


def test_many_shards_share_layers_below_the_engines_limit(inputs: ImageInputs) -> None:
    for number in range(250):
        (inputs.bundle / "model" / f"part-{number:03}.safetensors").write_bytes(b"w")
    layers = plan_image(inputs).layers
    assert len(layers) <= 103
    assert sum(len(_names(layer)) for layer in layers[1:-2]) == 252


def test_variables_of_the_base_stay_unless_named_again(inputs: ImageInputs) -> None:
    runtime = plan_image(
        replace(inputs, base_env=(("GPG_KEY", "x"), ("LANG", "C")), env=(("OMP_NUM_THREADS", "4"),))
    ).runtime
    env = dict(runtime.env)
    assert (env["GPG_KEY"], env["LANG"], env["OMP_NUM_THREADS"]) == ("x", "C.UTF-8", "4")
    assert len(env) == len(runtime.env)


@pytest.mark.parametrize("name", ["bundle.json", "model/config.json", "prompt/prompt.json"])
def test_a_bundle_without_an_essential_file_is_refused(inputs: ImageInputs, name: str) -> None:
    (inputs.bundle / name).unlink()
    with pytest.raises(TunebuildError, match=f"has no {name}"):
        plan_image(inputs)


def test_pickled_weights_are_refused(inputs: ImageInputs) -> None:
    (inputs.bundle / "model" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(TunebuildError, match="run code"):
        plan_image(inputs)


@pytest.mark.parametrize("variable", [("A", "two\nlines"), ("A=B", "x"), ("", "x"), ("A", "\0")])
def test_variables_that_a_dockerfile_cannot_carry_are_refused(
    inputs: ImageInputs, variable: tuple[str, str]
) -> None:
    with pytest.raises(TunebuildError, match="cannot carry"):
        plan_image(replace(inputs, labels=(variable,)))


@pytest.mark.slow
def test_the_app_layer_imports_without_the_rest_of_the_package(inputs: ImageInputs, tmp_path: Path) -> None:
    layer = plan_image(inputs).layers[-1]
    assert isinstance(layer, FilesLayer)
    for entry in layer.entries:
        if entry.name.endswith(".py"):
            path = tmp_path / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.content.path.read_bytes())  # type: ignore[union-attr]
    app = tmp_path / "opt" / "tunebuild" / "app"
    code = f"""if True:
        import sys; sys.path.insert(0, {str(app)!r})
        import importlib, pkgutil
        import tunebuild.prompt, tunebuild.serve
        assert tunebuild.__file__.startswith(sys.path[0]), tunebuild.__file__
        for module in pkgutil.walk_packages(tunebuild.serve.__path__, "tunebuild.serve."):
            if not module.name.endswith(("__main__", ".vllm")):
                importlib.import_module(module.name)
    """
    subprocess.run([sys.executable, "-B", "-c", code], check=True, timeout=120)


def test_a_file_may_not_be_named_twice(tmp_path: Path) -> None:
    entries = (Entry("a", b"1"), Entry("a", b"2"))
    with pytest.raises(ValueError, match="two entries"):
        layer_of_files(FilesLayer("x", "x", entries))
