"""A model that both tests of what it answers ask."""

from __future__ import annotations

import pytest

from support.models import save_base
from support.rows import write_rows
from tunebuild.models.base_model import BaseModel
from tunebuild.prompt import save_prompt
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent, Store
from tunebuild.store.tree import scan
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A quantized base trained until it repeats its rows, in a store."""
    work = tmp_path_factory.mktemp("answers")
    base = save_base("llama", work / "base")
    renderer = write_rows(base, work / "data", held_out=True)
    save_prompt(work / "data" / "prompt", renderer, base, [])
    tuning = TuningSpec(epochs=60, batch_size=5, learning_rate=1e-2, lora=LoraSpec(r=16), max_length=128)
    settings = TrainSettings(tuning, "cpu", "float32")
    for name in ("work", "trained"):
        (work / name).mkdir()
    train_adapter(
        settings,
        data=work / "data",
        base=base,
        work=work / "work",
        out=work / "trained",
        progress=Silent(),
    )
    model = BaseModel(base, scan(base).files)
    return Store(work / "store"), settings, model, scan(work / "data"), scan(work / "trained")
