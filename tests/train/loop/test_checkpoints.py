"""A checkpoint is believed if all that was sealed is there, as it was."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace

import pytest

from tunebuild.store import Silent
from tunebuild.train.loop.checkpoints import SealCheckpoints, _written_by, latest_whole


def save(root, step, text):
    directory = root / f"checkpoint-{step}"
    directory.mkdir(exist_ok=True)
    for name in ("model.safetensors", "rng_state_0.pth"):
        (directory / name).write_text(text, "utf-8")
    args = SimpleNamespace(output_dir=str(root), process_index=0, world_size=1)
    state = SimpleNamespace(global_step=step, is_world_process_zero=True, best_model_checkpoint=None)
    SealCheckpoints(2).on_save(args, state, None)
    return directory


def test_a_file_that_turns_up_after_sealing_is_no_damage(tmp_path):
    directory = save(tmp_path, 3, "a")
    (directory / "rng_state_1.pth").write_text("of another machine", "utf-8")
    assert latest_whole(tmp_path, Silent()) == directory
    (directory / "rng_state_0.pth").write_text("b", "utf-8")
    assert latest_whole(tmp_path, Silent()) is None


@pytest.mark.quick
def test_what_another_process_wrote_is_sealed_by_that_process(tmp_path):
    directory = tmp_path / "checkpoint-3"
    directory.mkdir()
    (directory / "rng_state_1.pth").write_text("half of it, as seen from here", "utf-8")
    save(tmp_path, 3, "a")
    assert set(json.loads((directory / "sealed.json").read_text("utf-8"))) == {
        "model.safetensors",
        "rng_state_0.pth",
    }


def test_a_process_is_not_put_out_by_what_another_one_is_writing(tmp_path):
    directory = tmp_path / "checkpoint-3"
    directory.mkdir()
    (directory / "rng_state_1.pth").write_text("mine", "utf-8")
    done = Event()

    def write():
        while not done.is_set():
            for number in range(20):
                (directory / f".tmp{number}").write_text("half", "utf-8")
                (directory / f".tmp{number}").replace(directory / "model.safetensors")

    with ThreadPoolExecutor(1) as other:
        writing = other.submit(write)
        try:
            found = [set(_written_by(1, directory)) for _ in range(300)]
        finally:
            done.set()
        writing.result()
    assert found == [{"rng_state_1.pth"}] * 300


def test_a_checkpoint_that_is_written_again_is_sealed_again(tmp_path):
    save(tmp_path, 3, "a")
    directory = save(tmp_path, 3, "b")
    assert latest_whole(tmp_path, Silent()) == directory
