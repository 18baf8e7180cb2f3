"""What vLLM is started with: its arguments, its environment, and what it can run at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.serve.engines._hardware import usable_cores
from tunebuild.serve.engines.base import EngineSetup
from tunebuild.serve.engines.dtype import resolve_dtype
from tunebuild.serve.engines.sizes import BYTES, token_bytes

#: Most answers at a time where the spec names no number: what a card, and what a CPU, gains from.
CAPACITY = {"cuda": 256, "cpu": 64}
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
    per_token = token_bytes(config, BYTES[dtype])
    blocks = -(-setup.context // 128) + 1  # of 128 tokens
    wanted = per_token * 128 * blocks * capacity
    floor = per_token * 128 * (blocks + 1)
    return max(floor, min(wanted, int(free_memory() * _CPU_CACHE_SHARE)), 32 << 20)


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


def _rank(adapter: Path) -> int:
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if (kind := config.get("peft_type")) != "LORA":
        raise fail("vllm-refuses", f"vLLM serves no adapter of the kind {kind}", "use transformers")
    most = max([config["r"], *config.get("rank_pattern", {}).values()])
    fitting = [rank for rank in RANKS if rank >= most]
    if not fitting:
        raise fail("vllm-refuses", f"vLLM serves adapters up to rank {RANKS[-1]}, not {most}", "merge it")
    return fitting[0]


def end_tokens(tokenizer: Path) -> frozenset[int]:
    """Ids of the end token that the settings beside a ``tokenizer.json`` name; none if they name none."""
    from tokenizers import Tokenizer

    settings = tokenizer.with_name("tokenizer_config.json")
    end = json.loads(settings.read_text("utf-8")).get("eos_token") if settings.is_file() else None
    text = end.get("content") if isinstance(end, dict) else end
    found = Tokenizer.from_file(str(tokenizer)).token_to_id(text) if text else None
    return frozenset() if found is None else frozenset((found,))
