"""What three models say at the same places: the base, the trained one, and the merged files."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel

from tunebuild.errors import fail
from tunebuild.evaluate.texts import spread
from tunebuild.merge.safetensors_io import list_tensors
from tunebuild.models.base_model import BaseModel
from tunebuild.prompt.example import IGNORED
from tunebuild.serve.engines.model import load_model
from tunebuild.store import Tree
from tunebuild.train.model.adapter import ADAPTER_WEIGHTS
from tunebuild.train.model.base import load_base
from tunebuild.train.plan.settings import TrainSettings

#: Rows looked at, and bytes of log-probabilities held for each model.
MAX_ROWS = 64
MAX_BYTES = 256 << 20

_T = TypeVar("_T")

# Bytes of a model below which threads wait for each other longer than they work: with a busy neighbor two
# took 73 s for what one does in 4.5 s.
_SMALL = 50_000_000


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities ``[positions, vocabulary]`` (float32) before each supervised token."""

    log_probabilities: torch.Tensor


@contextmanager
def few_threads(base: BaseModel) -> Iterator[None]:
    """One thread inside where the model is so small that more would only wait for each other."""
    before = torch.get_num_threads()
    if sum(f.size for f in base.files if f.path.endswith(".safetensors")) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_rows(rows: Sequence[dict[str, Any]], vocabulary: int) -> list[dict[str, Any]]:
    """Rows evenly spread, as many as are worth it and fit into memory; each with its ``index``."""
    room = MAX_BYTES // (4 * vocabulary)
    most = MAX_ROWS
    while True:
        chosen = [{**rows[index], "index": index} for index in spread(len(rows), most)]
        positions = sum(label != IGNORED for row in chosen for label in row["labels"])
        if positions <= room or len(chosen) <= 1:
            return chosen
        # Fewer of them, still from the first to the last.
        most = max(1, min(len(chosen) - 1, len(chosen) * room // positions))


def targets(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The supervised tokens of some rows, in the order of :class:`Logprobs`."""
    return torch.tensor([label for row in rows for label in row["labels"][1:] if label != IGNORED])


def load_trained(base: Path, adapter: Path, settings: TrainSettings) -> PeftModel:
    """The base as training held it, with the adapter beside it."""
    model = PeftModel.from_pretrained(load_base(base, settings), adapter)
    model.eval()
    return model


def ask_base_and_trained(
    base: BaseModel,
    trained: Tree,
    settings: TrainSettings,
    rows: Sequence[dict[str, Any]],
    ask_base: Callable[[Any], _T],
) -> tuple[_T, Logprobs]:
    """What ``ask_base`` hears from the base, and what the trained model says in some rows.

    There is one model in memory at a time. For the base an adapter is only turned off.
    """
    if settings.full:
        before = ask_base(load_base(base.directory, settings).eval())
        gc.collect()
        model = load_base(trained.path("model"), settings).eval()
    else:
        model = load_trained(base.directory, trained.path("adapter"), settings)
        with model.disable_adapter():
            before = ask_base(model.get_base_model())
    said = ask(model, rows)
    del model
    gc.collect()
    return before, said


def load_merged(directory: Path, settings: TrainSettings, adapter: Path | None = None) -> Any:
    """The files that the image gets, read back from disk as its server reads them.

    Args:
        directory: the merged model, or the base if the adapter stays beside it.
        settings: where and in which precision.
        adapter: that adapter.

    Raises:
        TunebuildError: ``model-incomplete`` or ``adapter-incomplete``: a tensor is missing, left over or of
            another shape; ``not-finite``: one holds a value that is not a number.
    """
    for tensor in (*list_tensors(directory), *(list_tensors(adapter, ADAPTER_WEIGHTS) if adapter else ())):
        value = tensor.read()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise fail("not-finite", f"{tensor.name} of the served model holds a value that is not a number")
    return load_model(
        directory,
        adapter,
        getattr(torch, settings.compute_dtype),
        {"": 0} if settings.device == "cuda" else None,
    )


def ask(model: Any, rows: Sequence[dict[str, Any]]) -> Logprobs:
    """What a model says in some rows."""
    found = []
    with torch.inference_mode():
        for row in rows:  # one by one: padding would be one more thing that could differ
            ids = torch.tensor([row["input_ids"]], device=model.device)
            # Virtual tokens, which some adapters put before a row, have logits, too.
            logits = model(input_ids=ids).logits[0, -len(row["input_ids"]) : -1]
            at = torch.tensor(row["labels"][1:]) != IGNORED
            found.append(torch.log_softmax(logits[at.to(logits.device)].float(), -1).cpu())
    return Logprobs(torch.cat(found))
