"""The vLLM engine: its ``AsyncLLM`` in this process, fed with token ids.

The model runs in a process of its own that ``AsyncLLM`` starts. Its asyncio side belongs to the event loop
that serves HTTP, so a token crosses no thread. vLLM sees neither text nor templates; the one exception is a
constraint, which it compiles against the tokenizer of the bundle.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.heavy_imports import heavy_imports
from tunebuild.serve.engines._dtype import resolve_dtype
from tunebuild.serve.engines._hardware import usable_cores
from tunebuild.serve.engines.base import EngineFailed, EngineSetup, Finish, Generation, Request, Token

_log = logging.getLogger("tunebuild.serve")

#: Most answers at a time where the spec names no number: what a card, and what a CPU, gains from.
_CAPACITY = {"cuda": 256, "cpu": 64}
#: Ranks that vLLM has kernels for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: ``top_logprobs`` of OpenAI's API.
_MAX_LOGPROBS = 20
_CPU_CACHE_SHARE = 0.4  # of the memory that is free, for keys and values

# Where container runtimes put the driver's libraries.
_DRIVER_PLACES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/nvidia/lib64",
)

_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "VLLM_CONFIG_ROOT": "vllm-config",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "XDG_CACHE_HOME": "cache",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}


class VllmEngine:
    """Runs a model that vLLM can load.

    Args:
        setup: what it is made of.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._capacity = setup.concurrency or _CAPACITY[setup.device]
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
        self._eos = _end_tokens(setup.tokenizer)
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
        return [_logprob(at, token) for at, token in zip(found[1:], row[1:], strict=True)]

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
                        generation.put(_token(token, logprobs, request.logprobs))
                if made.finish_reason is not None:
                    generation.put(_finish(made.finish_reason))
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


def engine_arguments(setup: EngineSetup, capacity: int) -> dict[str, Any]:
    """Arguments for vLLM's ``AsyncEngineArgs``.

    Args:
        setup: what the engine is made of.
        capacity: answers at the same time.

    Raises:
        TunebuildError: ``vllm-refuses``: the adapter is of a kind or rank that vLLM has no kernels for.
    """
    dtype = resolve_dtype(setup.dtype, setup.device)
    arguments: dict[str, Any] = {
        "model": str(setup.model),
        "tokenizer": str(setup.tokenizer.parent),
        "dtype": dtype,
        "max_model_len": setup.context,
        "max_num_seqs": capacity,
        "max_logprobs": _MAX_LOGPROBS,
        "load_format": "safetensors",
        # The model's own generation settings are no part of the contract: the bundle has all that counts.
        "generation_config": "vllm",
        "structured_outputs_config": {"backend": "guidance"},
        "disable_log_stats": True,
        "seed": 0,
    }
    if setup.adapter is not None:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(setup.adapter)}
    if setup.device == "cpu":
        # Compiling for the CPU needs a C++ compiler, which the image has not.
        arguments["enforce_eager"] = True
        arguments["kv_cache_memory_bytes"] = cache_bytes(setup, capacity, dtype)
    return arguments


def cache_bytes(setup: EngineSetup, capacity: int, dtype: str) -> int:
    """Memory for keys and values on a CPU: what ``capacity`` full answers take, or a share of what is free.

    vLLM itself would reserve most of the machine.
    """
    from tunebuild.serve.engines._memory import free_memory

    config = json.loads((setup.model / "config.json").read_text("utf-8"))
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads") or 1
    width = text.get("head_dim") or (text.get("hidden_size") or 1024) // heads
    layers = text.get("num_hidden_layers") or 32
    per_token = 2 * layers * (text.get("num_key_value_heads") or heads) * width * _BYTES[dtype]
    blocks = -(-setup.context // 128) + 1  # of 128 tokens
    wanted = per_token * 128 * blocks * capacity
    floor = per_token * 128 * (blocks + 1)
    return max(floor, min(wanted, int(free_memory() * _CPU_CACHE_SHARE)), 32 << 20)


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def set_environment(device: str) -> None:
    """Set what vLLM reads from the environment before it is imported. What is set already stays.

    Nothing is written but below the directory for temporary files, since the root may be read-only.
    """
    scratch = Path(tempfile.gettempdir()) / f"tunebuild-{os.getuid()}"
    wanted = {name: str(scratch / folder) for name, folder in _CACHES.items()}
    wanted |= {
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        # Forked processes cannot use CUDA, nor the threads of torch.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Messages between its processes go through shared memory, of which Docker gives 64 MB.
        "VLLM_MQ_MAX_CHUNK_BYTES_MB": "2",
    }
    if device == "cpu":
        wanted |= {
            "VLLM_TARGET_DEVICE": "cpu",
            # Bound to cores, threads wait for whatever else runs on them.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(usable_cores()),
            # Waiting threads that spin take the core from what they wait for, if anything else runs here.
            "OMP_WAIT_POLICY": "passive",
            "KMP_BLOCKTIME": "1",
        }
    if device == "cuda":
        # The image leaves FlashInfer out, whose kernels are compiled while the model loads.
        wanted["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
        driver = next((d for d in _DRIVER_PLACES if Path(d, "libcuda.so.1").exists()), None)
        if driver and not Path("/sbin/ldconfig").exists():
            wanted["TRITON_LIBCUDA_PATH"] = driver  # Triton asks ldconfig, which the image has not
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def sampling_parameters(request: Request, ends: frozenset[int]) -> Any:
    """A request's settings as vLLM's ``SamplingParams``.

    Args:
        request: what is asked for.
        ends: the tokenizer's end tokens: a constraint that is complete allows only those.

    Raises:
        ValueError: vLLM does not take them.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling, constraint = request.sampling, request.constraint
    structured = None
    if constraint is not None:
        key = "json" if constraint.kind == "json_schema" else "grammar"
        structured = StructuredOutputsParams(**{key: constraint.text})
    return SamplingParams(
        temperature=0.0 if sampling.greedy else sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        seed=None if sampling.seed is None else sampling.seed % 2**63,
        max_tokens=request.max_tokens,
        stop_token_ids=sorted(request.stop_ids | (ends if constraint else frozenset())),
        ignore_eos=True,  # the stop ids are the contract's, not the tokenizer's
        logprobs=request.logprobs,
        detokenize=False,
        structured_outputs=structured,
        output_kind=RequestOutputKind.DELTA,
    )


def _token(token: int, logprobs: Mapping[int, Any] | None, wanted: int | None) -> Token:
    if logprobs is None or wanted is None:
        return Token(token)
    ranked = sorted((entry.rank, id_, entry.logprob) for id_, entry in logprobs.items())
    # The chosen token is among them whatever its rank.
    top = tuple((id_, float(logprob)) for rank, id_, logprob in ranked if rank <= wanted)
    return Token(token, _logprob(logprobs, token), top)


def _logprob(at: Mapping[int, Any], token: int) -> float:
    return float(at[token].logprob)


def _finish(reason: str) -> Finish:
    return {"stop": Finish.STOP, "length": Finish.LENGTH}.get(reason, Finish.CANCELLED)


def _rank(adapter: Path) -> int:
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if (kind := config.get("peft_type")) != "LORA":
        raise fail("vllm-refuses", f"vLLM serves no adapter of the kind {kind}", "use transformers")
    most = max([config["r"], *config.get("rank_pattern", {}).values()])
    fitting = [rank for rank in RANKS if rank >= most]
    if not fitting:
        raise fail("vllm-refuses", f"vLLM serves adapters up to rank {RANKS[-1]}, not {most}", "merge it")
    return fitting[0]


def _end_tokens(tokenizer: Path) -> frozenset[int]:
    from tokenizers import Tokenizer

    settings = tokenizer.with_name("tokenizer_config.json")
    end = json.loads(settings.read_text("utf-8")).get("eos_token") if settings.is_file() else None
    text = end.get("content") if isinstance(end, dict) else end
    found = Tokenizer.from_file(str(tokenizer)).token_to_id(text) if text else None
    return frozenset() if found is None else frozenset((found,))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
