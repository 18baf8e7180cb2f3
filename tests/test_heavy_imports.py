"""The collector is out of the way of imports, and of nothing else."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from tunebuild.heavy_imports import heavy_imports


class Model:
    """Refers to itself, as trainers and models do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def usual():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_a_model_that_is_done_with_is_not_kept():
    done = weakref.ref(Model())
    with heavy_imports():
        assert done() is None
        assert not gc.isenabled()


def test_what_comes_later_is_collected_at_the_usual_pace():
    # In an interpreter of its own: in this one, somebody may have put collection off already.
    script = """
import gc
usual = gc.get_threshold()
from tunebuild.heavy_imports import heavy_imports, put_off_collection
put_off_collection()
assert gc.get_threshold() != usual
with heavy_imports():
    pass
assert gc.isenabled() and gc.get_threshold() == usual
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), heavy_imports():
        raise ImportError
    assert gc.isenabled()
