"""The running service: prompt contract, engine, and whether it may be asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from tunebuild.errors import TunebuildError
from tunebuild.prompt import Message, Renderer, check_golden, load_golden, load_prompt
from tunebuild.serve.admission import Admission
from tunebuild.serve.bundle import Bundle
from tunebuild.serve.engines.base import Engine, Generation, Request, Sampling
from tunebuild.serve.metrics import Metrics

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
        self.admission = Admission(bundle.limits.concurrency, bundle.limits.queue)
        self.metrics = Metrics(
            lambda: self.admission.inside, lambda: self.admission.waiting, lambda: self.not_ready() == ""
        )

    @property
    def renderer(self) -> Renderer:
        """The prompt contract; there once the service is ready."""
        assert self._renderer is not None
        return self._renderer

    def start(self) -> None:
        """Load in the background."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def drain(self) -> None:
        """Take no more requests; those inside go on."""
        self._reason = "draining"

    def stop(self) -> None:
        """End the engine."""
        self._engine.stop()

    def not_ready(self) -> str:
        """Why it may not be asked; empty if it may."""
        if self._reason:
            return self._reason
        return "" if self._engine.healthy else "the engine has ended"

    def prepare(self, prompt: list[int], max_tokens: int | None, sampling: Sampling) -> Generation:
        """An answer to a prompt, not running yet.

        Args:
            prompt: token ids.
            max_tokens: longest answer; the bundle's default, cut to what fits, if left out.
            sampling: how to choose tokens.

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
        return Generation(Request(prompt, wanted, self.renderer.stop_ids, sampling))

    def run(self, generation: Generation) -> None:
        """Hand a prepared answer to the engine."""
        self._engine.submit(generation)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Prompt ids of a conversation, as in training.

        Raises:
            PromptRefused: the template refuses it.
        """
        return self.renderer.prompt_ids(messages)

    def _load(self) -> None:
        try:
            prompt = self._directory / "prompt"
            renderer = load_prompt(prompt)
            if renderer.digest != self.bundle.prompt_digest:
                self._reason = "the prompt is not the one that this model was trained on"
            elif mismatch := check_golden(renderer, load_golden(prompt / "golden.json")):
                self._reason = str(mismatch)
            else:
                self._engine.start()
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
