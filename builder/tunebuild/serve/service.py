"""The running service: prompt contract, engine, and whether it may be asked."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tunebuild.errors import TunebuildError, fail
from tunebuild.prompt import Message, Renderer, check_golden, load_golden, load_prompt
from tunebuild.serve.admission import Admission
from tunebuild.serve.bell import Bell
from tunebuild.serve.bundle import PARITY_FILE, Bundle
from tunebuild.serve.engines.base import Engine
from tunebuild.serve.engines.dtype import resolve_dtype
from tunebuild.serve.engines.generation import Generation
from tunebuild.serve.engines.request import Constraint, Request, Sampling
from tunebuild.serve.metrics import Metrics
from tunebuild.serve.parity import Parity
from tunebuild.serve.reproduce import check_parity

T = TypeVar("T")
_log = logging.getLogger("tunebuild.serve")


class TooLong(Exception):
    """Prompt and answer do not fit the context; the text gives the numbers."""


class Service:
    """What the API talks to. Loading runs in a thread, so that liveness answers from the start.

    Args:
        directory: the bundle.
        engine: not started yet.
    """

    def __init__(self, directory: Path, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self._directory = directory
        self._engine = engine
        self._renderer: Renderer | None = None
        self._reason = "loading"
        self._running: set[Generation] = set()
        # One thread: however many long texts arrive at once, they cost one core.
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")
        self._unloadable = False
        self.failed = threading.Event()
        """Set once the model turns out to be one that cannot be loaded."""
        self.admission = Admission(bundle.limits.concurrency or 1, bundle.limits.queue)
        self.bell = Bell()
        self.metrics = Metrics(
            lambda: self._engine.running,
            lambda: max(0, self.admission.inside - self._engine.running),
            lambda: self.not_ready() == "",
        )

    @property
    def renderer(self) -> Renderer:
        """The prompt contract; there once the service is ready."""
        assert self._renderer is not None
        return self._renderer

    def start(self) -> None:
        """Load in the background."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def drain(self) -> None:
        """Take no more requests; those inside go on."""
        self._reason = "shutting down"

    def wait_idle(self, at_least: float, at_most: float) -> None:
        """Wait until nothing is inside; what is inside after ``at_most`` seconds is told that it ends.

        Args:
            at_least, at_most: seconds.
        """
        started = time.monotonic()
        time.sleep(min(at_least, at_most))
        while self._running and time.monotonic() - started < at_most:
            time.sleep(0.02)
        left = list(self._running)
        for generation in left:
            generation.loop.call_soon_threadsafe(generation.drained)
        if left:
            _log.warning("%d answers were not complete after %.0f s and have been ended", len(left), at_most)

    def stop(self) -> None:
        """End the engine."""
        self._engine.stop()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def in_background(self, work: Callable[[], T]) -> T:
        """Do what may take long, such as tokenizing, off the event loop; one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def not_ready(self) -> str:
        """Why it may not be asked; empty if it may."""
        if self._reason:
            return self._reason
        return "" if self._engine.healthy else "the engine has ended"

    def prepare(
        self,
        prompt: list[int],
        max_tokens: int | None,
        sampling: Sampling,
        logprobs: int | None = None,
        constraint: Constraint | None = None,
        *,
        whole: bool = False,
    ) -> Generation:
        """An answer to a prompt, not running yet.

        Args:
            prompt: token ids.
            max_tokens: longest answer; the bundle's default, cut to what fits, if left out.
            sampling: how to choose tokens.
            logprobs: likeliest tokens to tell of at each place; ``None`` for no log-probabilities.
            constraint: what the text must match.
            whole: nobody reads it before its end.

        Raises:
            TooLong: it does not fit the context.
        """
        context = self.bundle.limits.context
        wanted = max_tokens or min(self.bundle.defaults.max_tokens, context - len(prompt))
        if wanted < 1 or len(prompt) + wanted > context:
            raise TooLong(
                f"the prompt has {len(prompt)} tokens and the answer may have {max(wanted, 1)}, "
                f"together more than the context of {context}"
            )
        stops = self.renderer.stop_ids
        return Generation(Request(prompt, wanted, stops, sampling, logprobs, constraint, whole=whole))

    def run(self, generation: Generation) -> None:
        """Hand a prepared answer to the engine. It counts as running until its reader is done with it."""
        self._running.add(generation)
        generation.on_end(self._running.discard)
        self._engine.submit(generation)

    def chat_prompt(
        self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Prompt ids of a conversation, as in training.

        Args:
            messages: the conversation.
            variables: of the template, where the request may set them to others than those of training.

        Raises:
            PromptRefused: the template refuses it.
        """
        return self.renderer.prompt_ids(messages, variables)

    def _unlike_the_build(self, renderer: Renderer) -> str:
        """Why the engine does not serve what was built; empty if it does."""
        if not self.bundle.parity_digest:
            return ""
        check = check_parity(
            self._engine,
            Parity.load(self._directory / PARITY_FILE),
            resolve_dtype(self.bundle.dtype, self.bundle.device),
            self.bundle.limits.context,
            renderer.stop_ids,
        )
        verdict = asyncio.run_coroutine_threadsafe(check, self._loop).result()
        _log.info("parity: %s", verdict)
        return verdict.problem

    def _load(self) -> None:
        try:
            prompt = self._directory / "prompt"
            renderer = load_prompt(prompt)
            if renderer.digest != self.bundle.prompt_digest:
                self._reason = "the prompt is not the one that this model was trained on"
            elif mismatch := check_golden(renderer, load_golden(prompt / "golden.json")):
                self._reason = str(mismatch)
            else:
                self.bundle.check_files(self._directory)
                self._start_engine()
                if problem := self._unlike_the_build(renderer):
                    raise fail("engine-parity", problem)
                self.admission.concurrency = self._engine.capacity
                self._renderer = renderer
                # A SIGTERM during loading has the last word.
                self._reason = "" if self._reason == "loading" else self._reason
                _log.info("ready: %s, prompt %s", self.bundle.name, renderer.digest)
                return
        except TunebuildError as error:
            self._reason = str(error)
        except Exception as error:  # noqa: BLE001
            _log.exception("the model cannot be loaded")
            self._reason = f"the model cannot be loaded: {error}"
        _log.error("not ready: %s", self._reason)
        if self._unloadable:
            self.failed.set()

    def _start_engine(self) -> None:
        """Load the model. One that cannot be loaded never will be: the server says so, and ends."""
        try:
            self._engine.start()
        except BaseException:
            self._unloadable = True
            raise
