"""The image gets the weights that were measured, or there is none."""

from __future__ import annotations

import hashlib
import os

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.image.weights import WeightsStage, weight_digests
from tunebuild.store import Silent
from tunebuild.store.tree import scan


@pytest.fixture
def merged(tmp_path):
    (tmp_path / "merged" / "model").mkdir(parents=True)
    for number in (1, 2):
        name = f"model-base-{number:05d}.safetensors"
        (tmp_path / "merged" / "model" / name).write_bytes(os.urandom(100_000))
    return scan(tmp_path / "merged")


def test_layers_are_digested_from_what_was_measured(merged, tmp_path):
    (tmp_path / "out").mkdir()
    WeightsStage(merged).run(tmp_path, tmp_path / "out", Silent())
    assert set(weight_digests(scan(tmp_path / "out"))) == {"weights 1/2", "weights 2/2"}


@pytest.mark.parametrize("place", [0, 50_000, 99_999])
def test_a_flipped_bit_is_found_though_size_and_time_are_the_same(merged, tmp_path, place):
    file = merged.path("model", "model-base-00002.safetensors")
    status, data = file.stat(), bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashlib.sha256(data).hexdigest() != merged.files[1].digest
    (tmp_path / "out").mkdir()
    with pytest.raises(
        TunebuildError, match=r"model-base-00002\.safetensors is not what was measured"
    ) as caught:
        WeightsStage(merged).run(tmp_path, tmp_path / "out", Silent())
    assert "cache verify --remove" in caught.value.diagnostics[0].hint
    assert not list((tmp_path / "out").iterdir())
