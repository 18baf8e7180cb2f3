"""Quantizes a model with llm-compressor. Run by the interpreter that has it, so it imports nothing of ours.

``python quantize.py REQUEST`` reads a JSON file::

    parent       process id of the one that waits
    model        directory of the model
    tokenizer    a tokenizer.json, which llm-compressor wants to see and does not use
    format, bits, group_size
    rows         token ids to calibrate on
    shard_bytes  upper limit of a file of weights
    out          gets the model

and writes ``quantized.json`` into ``out``: how many linear layers there are, and how many it quantized.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections import UserDict
from pathlib import Path
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Do what is asked."""
    # As store/process.py does it, which is not to be had here.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != request["parent"]:
        os._exit(1)
    from llmcompressor import oneshot
    from torch import nn
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype="auto", local_files_only=True, trust_remote_code=False
    )
    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    ignored = [name for name, module in model.named_modules() if module is head]
    # Row by row, so that nothing is padded or cut.
    rows = DataLoader(request["rows"], batch_size=1, collate_fn=_tensors)
    oneshot(
        model=model,
        processor=PreTrainedTokenizerFast(tokenizer_file=request["tokenizer"]),
        dataset=rows,
        num_calibration_samples=len(request["rows"]),
        recipe=_recipe(request["format"], request["bits"], request["group_size"], ignored),
    )
    done = sum(getattr(module, "quantization_scheme", None) is not None for module in linear.values())
    out = Path(request["out"])
    model.save_pretrained(out, save_compressed=True, max_shard_size=request["shard_bytes"])
    (out / "quantized.json").write_text(json.dumps({"linear": len(linear), "quantized": done}), "utf-8")


def _tensors(batch: list[list[int]]) -> dict[str, Any]:
    import torch

    ids = torch.tensor(batch)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _recipe(form: str, bits: int, group_size: int, ignored: list[str]) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    weights = {
        "num_bits": bits,
        "type": "int",
        "strategy": "group",
        "group_size": group_size,
        # AWQ goes with zero points where there are few bits; with 8, none are needed.
        "symmetric": form == "gptq" or bits == 8,
    }
    settings = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ignored}
    if form == "gptq":
        return [GPTQModifier(**settings)]
    awq = AWQModifier()
    _allow_cpu(awq)
    return [awq, QuantizationModifier(**settings)]


def _allow_cpu(awq: Any) -> None:
    """Keep AWQ of llm-compressor 0.14 from pinning memory for a card where there is none; torch refuses."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        return

    class Unpinned(IntermediatesCache):
        def pin_memory(self, *arguments: object, **options: object) -> None:
            return

    class Caches(UserDict[Any, Any]):
        def __setitem__(self, parent: Any, cache: Any) -> None:
            super().__setitem__(parent, Unpinned(cache.batch_intermediates, cache.offload_device))

    awq._parent_args_cache = Caches()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
