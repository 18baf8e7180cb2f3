"""The vLLM engine: its ``AsyncLLM`` in this process, fed with token ids.

The model runs in a process of its own that ``AsyncLLM`` starts. Its asyncio side belongs to the event loop
that serves HTTP, so a token crosses no thread. vLLM sees neither text nor templates; the one exception is a
constraint, which it compiles against the tokenizer of the bundle.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from tunebuild.errors import fail
from tunebuild.heavy_imports import heavy_imports
from tunebuild.serve.engines._vllm_request import finish_of, logprob_of, sampling_parameters, token_of
from tunebuild.serve.engines._vllm_setup import CAPACITY, end_tokens, engine_arguments, set_environment
from tunebuild.serve.engines.base import EngineSetup
from tunebuild.serve.engines.generation import EngineFailed, Generation
from tunebuild.serve.engines.request import Finish

_log = logging.getLogger("tunebuild.serve")


class VllmEngine:
    """Runs a model that vLLM can load.

    Args:
        setup: what it is made of.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._capacity = setup.concurrency or CAPACITY[setup.device]
        self._llm: Any = None
        self._lora: Any = None
        self._eos: frozenset[int] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0

    @property
    def healthy(self) -> bool:
        """Whether the process with the model lives."""
        return self._llm is not None and not self._llm.errored

    @property
    def capacity(self) -> int:
        """Answers at the same time."""
        return self._capacity

    @property
    def running(self) -> int:
        """Answers that have begun."""
        return min(self._answering, self._capacity)

    @property
    def dtype(self) -> str:
        """Precision of the weights in memory, such as ``bfloat16``."""
        return str(self._llm.model_config.dtype).removeprefix("torch.")

    def start(self) -> None:
        """Load the model; blocks until it can answer.

        Raises:
            TunebuildError: ``vllm-refuses``, with vLLM's words; or the machine has no GPU it could use.
        """
        setup = self._setup
        if setup.device == "cuda":
            from tunebuild.serve.engines._cuda import require_cuda

            require_cuda()
        set_environment(setup.device)
        with heavy_imports():
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.v1.engine.async_llm import AsyncLLM

        if setup.adapter is not None:
            # A name that holds the digest, and a number made from it: vLLM keeps adapters by both.
            number = int(hashlib.sha256(setup.adapter_name.encode()).hexdigest()[:7], 16) + 1
            self._lora = LoRARequest(setup.adapter_name, number, str(setup.adapter))
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(setup, self._capacity)))
        except (ValueError, NotImplementedError, RuntimeError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            hint = "what vLLM does not run, 'serving.engine: transformers' may"
            raise fail("vllm-refuses", f"vLLM cannot load the model: {lines[0]}", hint) from error
        self._eos = end_tokens(setup.tokenizer)
        _log.info("model in %s on %s, vLLM, up to %d at a time", self.dtype, setup.device, self._capacity)

    def submit(self, generation: Generation) -> None:
        """Take an answer."""
        task = asyncio.get_running_loop().create_task(self._answer(generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        # A task that is cancelled aborts its request in the engine, waiting or running.
        def abort(_: Generation) -> None:
            task.cancel()

        generation.on_cancel(abort)

    def stop(self) -> None:
        """End the engine; answers that still run finish as cancelled."""
        for task in tuple(self._tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)
        if self._llm is not None:
            self._llm.shutdown()

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each row's tokens after the first, given those before them.

        Args:
            rows: token ids, each at least two and fewer than the context.
        """
        if self._lora is not None:
            # Loaded by name now: one that vLLM refuses would else end the engine at the first request.
            try:
                await self._llm.add_lora(self._lora)
            except Exception as error:
                raise EngineFailed(f"vLLM refuses the adapter: {_first_line(error)}") from error
            # One at a time: with an adapter, vLLM's kernels for CPUs take the logits of a prompt's tokens for
            # those of so many requests, and the engine ends.
            return [await self._score(row) for row in rows]
        return list(await asyncio.gather(*(self._score(row) for row in rows)))

    async def _score(self, row: list[int]) -> list[float]:
        from vllm import SamplingParams

        params = SamplingParams(
            temperature=0.0, max_tokens=1, ignore_eos=True, detokenize=False, prompt_logprobs=0
        )
        found = None
        async for output in self._generate(row, params, "score"):
            found = output.prompt_logprobs or found
        assert found is not None
        return [logprob_of(at, token) for at, token in zip(found[1:], row[1:], strict=True)]

    async def _answer(self, generation: Generation) -> None:
        request, begun = generation.request, False
        try:
            # Sampling settings are checked here, so that a bad one is this request's alone.
            params = sampling_parameters(request, self._eos)
            stops = frozenset(params.stop_token_ids)
            async for output in self._generate(request.prompt, params, request.request_id):
                if not begun:
                    begun = True
                    self._answering += 1
                made = output.outputs[0]
                for number, token in enumerate(made.token_ids):
                    if token not in stops:
                        logprobs = made.logprobs[number] if made.logprobs else None
                        generation.put(token_of(token, logprobs, request.logprobs))
                if made.finish_reason is not None:
                    generation.put(finish_of(made.finish_reason))
                    return
            generation.put(Finish.CANCELLED)
        except asyncio.CancelledError:
            generation.put(Finish.CANCELLED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client hears of it
            _log.error("vLLM could not answer: %s", error)
            generation.put(EngineFailed(f"the model could not answer: {_first_line(error)}"))
        finally:
            self._answering -= begun

    def _generate(self, ids: list[int], params: Any, name: str) -> Any:
        # vLLM makes the name unique itself.
        return self._llm.generate({"prompt_token_ids": ids}, params, name, lora_request=self._lora)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
