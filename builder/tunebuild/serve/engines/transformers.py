"""The transformers engine: one thread, one batch, new requests join between two tokens."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.heavy_imports import heavy_imports
from tunebuild.serve.engines._hardware import cpu_has_bfloat16, usable_cores
from tunebuild.serve.engines.base import EngineFailed, Finish, Generation

_log = logging.getLogger("tunebuild.serve")
_IDLE_SECONDS = 0.5  # how long a sleeping engine may take to notice that it is stopped


@dataclass(slots=True)
class _Row:
    generation: Generation
    sampler: Any
    made: int = 0
    last: int = 0


class TransformersEngine:
    """Runs a model directory that transformers can load.

    Args:
        model_dir: configuration and safetensors.
        adapter_dir: an adapter in PEFT's format that is put on top, if any.
        device: ``cpu`` or ``cuda``.
        dtype: ``auto`` is bfloat16 where the hardware has it, else float32.
        concurrency: rows of the batch.
    """

    def __init__(
        self, model_dir: Path, adapter_dir: Path | None, device: str, dtype: str, concurrency: int
    ) -> None:
        self._model_dir = model_dir
        self._adapter_dir = adapter_dir
        self._device = device
        self._dtype = dtype
        self._concurrency = concurrency
        self._waiting: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._rows: list[_Row] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def healthy(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Load the model and start the thread."""
        with heavy_imports():
            import torch

            from tunebuild.serve.engines.model import load_model

        name = self._dtype
        if name == "auto":
            name = "bfloat16" if self._device == "cuda" or cpu_has_bfloat16() else "float32"
        if self._device == "cpu":
            torch.set_num_threads(usable_cores())
        model = load_model(self._model_dir, self._adapter_dir, getattr(torch, name)).to(self._device)
        _log.info("model in %s on %s, %d threads", name, self._device, torch.get_num_threads())
        self._thread = threading.Thread(target=self._run, args=(model,), name="engine", daemon=True)
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        """Queue an answer."""
        self._waiting.put(generation)

    def stop(self) -> None:
        """End the thread; whatever still runs is cancelled."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self, model: Any) -> None:
        from tunebuild.serve.engines._batch import Batch

        batch = Batch(model)
        while not self._stopping.is_set():
            try:
                self._admit(batch)
                if self._rows:
                    self._advance(batch)
            except Exception as error:  # noqa: BLE001
                # One request may be too large for memory; the others' clients should hear of it and the
                # engine should live.
                _log.exception("a step of the engine failed")
                for row in self._rows:
                    row.generation.feed(EngineFailed(f"the model could not answer: {error}"))
                self._rows, batch = [], Batch(model)
        for row in self._rows:
            row.generation.feed(Finish.CANCELLED)

    def _admit(self, batch: Any) -> None:
        """Let waiting requests join; sleep while there is nothing to do."""
        from tunebuild.serve.engines._sampling import Sampler

        joining: list[Generation] = []
        while len(self._rows) + len(joining) < self._concurrency:
            try:
                busy = bool(self._rows or joining)
                generation = self._waiting.get(block=not busy, timeout=None if busy else _IDLE_SECONDS)
            except queue.Empty:
                break
            if not generation.cancelled:
                joining.append(generation)
        if not joining:
            return
        rows = [_Row(g, Sampler(g.request.sampling)) for g in joining]
        self._rows.extend(rows)
        logits = batch.join([g.request.prompt for g in joining])
        self._settle(batch, rows, logits)

    def _advance(self, batch: Any) -> None:
        """One token for every row."""
        self._settle(batch, self._rows, batch.step([row.last for row in self._rows]))

    def _settle(self, batch: Any, rows: list[_Row], logits: Any) -> None:
        """Choose the rows' tokens, hand them out, and drop the rows that are done."""
        done = {id(row) for row, scores in zip(rows, logits, strict=True) if self._is_done(row, scores)}
        if done:
            batch.keep([i for i, row in enumerate(self._rows) if id(row) not in done])
            self._rows = [row for row in self._rows if id(row) not in done]

    @staticmethod
    def _is_done(row: _Row, scores: Any) -> bool:
        generation = row.generation
        if generation.cancelled:
            generation.feed(Finish.CANCELLED)
            return True
        row.last = row.sampler.choose(scores)
        if row.last in generation.request.stop_ids:
            generation.feed(Finish.STOP)
            return True
        generation.feed(row.last)
        row.made += 1
        if row.made >= generation.request.max_tokens:
            generation.feed(Finish.LENGTH)
            return True
        return False
