"""Loads the base model for training, quantized or not, with the guards that loading needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedModel

from tunebuild.errors import fail
from tunebuild.serve.engines.attention import attention_of
from tunebuild.serve.engines.classes import model_class
from tunebuild.train.plan.settings import TrainSettings

#: bitsandbytes' AVX512 kernels dequantize other widths wrongly, with a relative error of 0.2 instead of
#: 0.09 and without a word (seen in 0.50.2 for every multiple of 16 that is not one of 64).
CPU_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the base was held during training; the merge repeats it exactly.

    Attributes:
        modules: full names of the modules that were quantized.
        quant_type, double_quant, blocksize: bitsandbytes' settings.
        load_dtype: dtype of the weights when they were quantized: another one flips codes.
        compute_dtype: dtype they are dequantized to.
    """

    modules: tuple[str, ...]
    quant_type: str
    double_quant: bool
    blocksize: int
    load_dtype: str
    compute_dtype: str
    device: str
    bitsandbytes: str
    torch: str

    def to_json(self) -> dict[str, Any]:
        """For ``quantization.json``."""
        return asdict(self)


def load_base(directory: Path, settings: TrainSettings) -> PreTrainedModel:
    """The base model, ready for an adapter; in 32 bits where all of it is trained.

    Small updates of weights in 16 bits would vanish in rounding; products are still of 16 bits, where the
    settings say so.

    Raises:
        TunebuildError: a width that bitsandbytes gets wrong on CPU, or an architecture that cannot load.
    """
    dtype = torch.float32 if settings.full else getattr(torch, settings.compute_dtype)
    quantized = settings.tuning.method == "qlora"
    whole_on_card = settings.device == "cuda" and not settings.tuning.shard  # else a card gets its part later
    if quantized and settings.device == "cpu":
        refuse_bad_widths(directory)
    config = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if quantized
        else None
    )
    try:
        published = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        model = model_class(published).from_pretrained(
            directory,
            dtype=dtype,
            quantization_config=config,
            device_map={"": torch.cuda.current_device()} if whole_on_card else None,
            attn_implementation=attention_of(directory),
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
        )
    except (ValueError, OSError, KeyError) as error:
        message = str(error).strip().splitlines()[0]
        raise fail("base-model", f"the base model cannot be loaded: {message}", path="model.base") from error
    if quantized:
        quantise_subclasses(model, dtype)
        keep_4bit_weights_unpacked(model)
    model.config.use_cache = False
    return model


def keep_4bit_weights_unpacked(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in place.

    On processors with AVX512-BF16, the first forward in eval mode without gradients (an evaluation, a
    sample) repacks weight and quantization state for inference. Training afterwards gets wrong gradients
    and a merge reads garbage; nothing is raised. The switch is the module's own attribute.
    """
    for _, module in _quantized_modules(model):
        module.support_avx512bf16_for_cpu = False


def quantise_subclasses(model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
    """Quantize the linear layers that transformers passes over.

    It replaces modules whose type is exactly ``nn.Linear``. Falcon's are of a subclass, so a "4-bit" Falcon
    stays in 16 bits without a word (seen in transformers 5.19).

    Raises:
        TunebuildError: the model has no linear layer at all that could be quantized.
    """
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and not isinstance(module, Linear4bit) and module is not head:
            model.set_submodule(name, quantise_layer(module, compute_dtype))
    if next(_quantized_modules(model), None) is None:
        message = "the base model has no linear layer that can be held in 4 bits"
        raise fail("nothing-quantized", message, "use tuning.method: lora", path="tuning.method")


def quantise_layer(module: nn.Linear, compute_dtype: torch.dtype) -> nn.Module:
    """A linear layer with the same weights in NF4."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    replacement = Linear4bit(
        module.in_features,
        module.out_features,
        module.bias is not None,
        compute_dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    replacement.weight = Params4bit(
        module.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    replacement.bias = module.bias
    replacement.requires_grad_(False)
    # Moving the module, even to where it is, is what quantizes it.
    moved: nn.Module = replacement.to(module.weight.device)
    return moved


def describe_quantization(model: nn.Module, settings: TrainSettings) -> Quantization | None:
    """What was quantized and how; ``None`` if nothing was."""
    modules = dict(_quantized_modules(model))
    if not modules:
        return None
    state: Any = next(iter(modules.values())).weight.quant_state
    return Quantization(
        modules=tuple(sorted(modules)),
        quant_type=state.quant_type,
        double_quant=state.nested,
        blocksize=state.blocksize,
        load_dtype=settings.compute_dtype,
        compute_dtype=settings.compute_dtype,
        device=settings.device,
        bitsandbytes=version("bitsandbytes"),
        torch=version("torch"),
    )


def refuse_bad_widths(directory: Path) -> None:
    """Refuse linear layers whose input width bitsandbytes dequantizes wrongly on CPU.

    Looks at a skeleton of the model, so that it costs no memory.

    Raises:
        TunebuildError: names the first such module.
    """
    from tunebuild.models.skeleton import build_skeleton

    skeleton = build_skeleton(directory)
    head = skeleton.get_output_embeddings()
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.Linear) and module is not head and module.in_features % CPU_WIDTH:
            raise fail(
                "width-4bit",
                f"{name} has {module.in_features} inputs; bitsandbytes on CPU is right only for "
                f"multiples of {CPU_WIDTH}",
                "use tuning.method: lora, or train on a GPU",
                path="tuning.method",
            )


def _quantized_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            yield name, module
