"""The transformers engine: one thread, one batch, new requests join between two tokens."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunebuild.heavy_imports import heavy_imports
from tunebuild.serve.contract import ENGINE_SECONDS
from tunebuild.serve.engines._hardware import FreeCores
from tunebuild.serve.engines.base import EngineSetup
from tunebuild.serve.engines.dtype import resolve_dtype
from tunebuild.serve.engines.generation import EngineFailed, Generation, Item, deliver
from tunebuild.serve.engines.request import Finish, Token

if TYPE_CHECKING:
    from tunebuild.serve.engines._constraint import Constraints
    from tunebuild.serve.engines._sampling import Sampler

_log = logging.getLogger("tunebuild.serve")
_IDLE_SECONDS = 0.5  # how long a sleeping engine may take to notice that it is stopped
_JOIN_TOKENS = 8192  # of prompts that join together, padding included; running answers wait meanwhile


@dataclass(slots=True)
class _Row:
    generation: Generation
    sampler: Sampler
    made: list[int] = field(default_factory=list)


class TransformersEngine:
    """Runs a model directory that transformers can load."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._capacity = setup.concurrency or 1
        self._work = threading.Condition()
        self._waiting: deque[Generation] = deque()  # guarded by _work
        self._rows: list[_Row] = []  # the engine's thread alone writes it
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._model: Any = None
        self._constraints: Constraints | None = None
        self._cores: FreeCores | None = None

    @property
    def healthy(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def capacity(self) -> int:
        """Rows of the batch."""
        return self._capacity

    @property
    def running(self) -> int:
        """Rows that are in the batch now."""
        return len(self._rows)

    def start(self) -> None:
        """Load the model and start the thread."""
        with heavy_imports():
            import torch

            from tunebuild.serve.engines._memory import rows_that_fit
            from tunebuild.serve.engines.model import load_model

        setup = self._setup
        name = resolve_dtype(setup.dtype, setup.device)
        if setup.device == "cuda":
            from tunebuild.serve.engines._cuda import require_cuda

            require_cuda()
        if setup.device == "cpu":
            self._cores = FreeCores()
            torch.set_num_threads(self._cores.count)
        model = load_model(setup.model, setup.adapter, getattr(torch, name)).to(setup.device)
        if setup.concurrency is None:
            self._capacity = rows_that_fit(model, setup.context, setup.device)
        _log.info(
            "model in %s on %s, %d threads, %d answers at the same time",
            name,
            setup.device,
            torch.get_num_threads(),
            self._capacity,
        )
        self._model = model
        self._thread = threading.Thread(target=self._run, args=(model,), name="engine", daemon=True)
        self._thread.start()

    @property
    def dtype(self) -> str:
        """Precision of the weights in memory."""
        return str(self._model.dtype).removeprefix("torch.")

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each row's tokens after the first."""
        return await asyncio.to_thread(self._score, rows)

    def _score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        import torch

        scores: list[list[float]] = []
        with torch.inference_mode():
            for row in rows:
                ids = torch.tensor([row], device=self._model.device)
                # Virtual tokens, which some adapters put before a row, have logits, too.
                logits = self._model(input_ids=ids).logits[0, -len(row) : -1].float()
                chosen = logits.gather(1, ids[0, 1:, None])[:, 0]
                scores.append((chosen - logits.logsumexp(-1)).tolist())
        return scores

    def submit(self, generation: Generation) -> None:
        """Queue an answer."""
        generation.on_cancel(self._abort)
        with self._work:
            if not self._stopping:
                self._waiting.append(generation)
                self._work.notify()
                return
        generation.put(Finish.CANCELLED)

    def stop(self) -> None:
        """End the thread; whatever still runs is cancelled."""
        with self._work:
            self._stopping = True
            self._work.notify()
        if self._thread is not None:
            self._thread.join(timeout=ENGINE_SECONDS)

    def _abort(self, generation: Generation) -> None:
        # One that runs is dropped at the next token, since its ``cancelled`` is set.
        with self._work:
            if generation in self._waiting:
                self._waiting.remove(generation)

    def _run(self, model: Any) -> None:
        from tunebuild.serve.engines.batch import batch_for

        batch = batch_for(model)
        while True:
            with self._work:
                if not (self._rows or self._waiting or self._stopping):
                    self._work.wait(_IDLE_SECONDS)
                if self._stopping:
                    break
                joining = self._next_to_join()
            self._drop_cancelled(batch)
            try:
                if joining:
                    self._join(batch, joining)
                elif self._rows:
                    self._settle(batch, self._rows, batch.step([row.made[-1] for row in self._rows]))
            except Exception:  # noqa: BLE001
                _log.exception("a step of the engine failed; each answer goes on by itself")
                batch = self._recover(model)
            if self._cores is not None and self._cores.changed():
                import torch

                torch.set_num_threads(self._cores.count)
        with self._work:
            left = [*(row.generation for row in self._rows), *self._waiting]
            self._waiting.clear()
        deliver([(generation, Finish.CANCELLED) for generation in left])
        self._rows = []

    def _next_to_join(self) -> list[Generation]:
        """Waiting answers that there is a row for, as many as can be read at a time."""
        joining: list[Generation] = []
        longest = 0
        while self._waiting and len(self._rows) + len(joining) < self._capacity:
            longest = max(longest, len(self._waiting[0].request.prompt))
            if joining and longest * (len(joining) + 1) > _JOIN_TOKENS:
                break
            joining.append(self._waiting.popleft())
        return joining

    def _join(self, batch: Any, joining: Sequence[Generation]) -> None:
        """Read prompts; of several that fail together, each is tried alone."""
        rows = [row for generation in joining if (row := self._row(generation))]
        if not rows:
            return
        try:
            logits = batch.join([row.generation.request.prompt for row in rows])
        except Exception as error:  # noqa: BLE001 - memory, most likely: this prompt's alone
            if len(rows) > 1:
                for row in rows:
                    self._join(batch, [row.generation])
            else:
                _fail(rows[0], error)
            return
        self._rows = [*self._rows, *rows]
        self._settle(batch, rows, logits)

    def _row(self, generation: Generation) -> _Row | None:
        from tunebuild.serve.engines._sampling import Sampler

        request = generation.request
        if generation.cancelled:
            return None
        try:
            matcher = None
            if request.constraint is not None:
                matcher = self._compiler().matcher(request.constraint, request.stop_ids)
            return _Row(generation, Sampler(request, matcher))
        except Exception as error:  # noqa: BLE001 - a request's own settings
            generation.feed(EngineFailed(str(error)))
            return None

    def _compiler(self) -> Constraints:
        if self._constraints is None:
            import json

            from tunebuild.serve.engines._constraint import Constraints

            config = json.loads((self._setup.model / "config.json").read_text("utf-8"))
            size = config.get("vocab_size") or config["text_config"]["vocab_size"]
            self._constraints = Constraints(self._setup.tokenizer, size)
        return self._constraints

    def _recover(self, model: Any) -> Any:
        """A new batch after a step failed half way: every row is read again, and one that cannot be ends."""
        from tunebuild.serve.engines.batch import batch_for

        batch, rows, self._rows = batch_for(model), self._rows, []
        for row in rows:
            if row.generation.cancelled:
                continue
            try:
                logits = batch.join([row.generation.request.prompt + row.made])
            except Exception as error:  # noqa: BLE001
                _fail(row, error)
                continue
            self._rows = [*self._rows, row]
            self._settle(batch, [row], logits)
        return batch

    def _drop_cancelled(self, batch: Any) -> None:
        self._keep(batch, [row for row in self._rows if not row.generation.cancelled])

    def _keep(self, batch: Any, rows: list[_Row]) -> None:
        if len(rows) < len(self._rows):
            kept = {id(row) for row in rows}
            batch.keep([i for i, row in enumerate(self._rows) if id(row) in kept])
            self._rows = rows

    def _settle(self, batch: Any, rows: list[_Row], logits: Any) -> None:
        """Choose the rows' tokens, hand them out, and drop the rows that are done."""
        from tunebuild.serve.engines._sampling import choose_all

        out: list[tuple[Generation, Item]] = []
        done: set[int] = set()
        for row, chosen in zip(rows, choose_all([row.sampler for row in rows], logits), strict=True):
            end = self._take(row, chosen, out)
            if end is not None:
                out.append((row.generation, end))
                done.add(id(row))
        deliver(out)
        self._keep(batch, [row for row in self._rows if id(row) not in done])

    @staticmethod
    def _take(row: _Row, chosen: Token | Exception, out: list[tuple[Generation, Item]]) -> Item | None:
        """Note a row's token; how the row ends, if it does."""
        request = row.generation.request
        if isinstance(chosen, Exception):
            return _failure(row, chosen)
        if chosen.id in request.stop_ids:
            return Finish.STOP
        row.made.append(chosen.id)
        out.append((row.generation, chosen))
        return Finish.LENGTH if len(row.made) >= request.max_tokens else None


def _failure(row: _Row, error: Exception) -> EngineFailed:
    _log.error("an answer failed: %s", error, extra={"fields": {"id": row.generation.request.request_id}})
    return EngineFailed(f"the model could not answer: {error}")


def _fail(row: _Row, error: Exception) -> None:
    row.generation.feed(_failure(row, error))
