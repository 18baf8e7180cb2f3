"""LoRA on a linear layer as one node of the graph.

PEFT's layer copies the base's output, multiplies the update by its scale, adds it, and converts its input:
each a pass over activations in memory. Here the update is added by the matrix product itself, only the input
and the inner product are kept for the backward pass, and a weight in 4 bits is dequantized where it is used
and dropped again. The result is PEFT's (the tests hold values and gradients against it).

Both passes are custom operators, which ``torch.compile`` does not look into: traced, it would find the
dequantized weight in both passes and keep it between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn

# A weight, its quantization state (nothing for a dense one), and the sizes of that state's blocks.
_Operands = tuple[Tensor, tuple[Tensor, ...], tuple[int, int]]


@torch.library.custom_op("tunebuild::lora_linear", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    state: Sequence[Tensor],
    blocksize: int,
    nested_blocksize: int,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """``x W' + bias + scaling (x A') B'`` and ``x A'``, for ``x [tokens, in]``."""
    wide, low = a.to(x.dtype), b.to(x.dtype) * scaling
    dense = _dense(weight, state, (blocksize, nested_blocksize), x.dtype, (b.shape[0], x.shape[1]))
    inner = x @ wide.T
    # The small product first, so that the large one, which waits for no memory, reads and adds it on the way.
    output = inner @ low.T if bias is None else torch.addmm(bias, inner, low.T)
    return output.addmm_(x, dense.T), inner


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    state: Sequence[Tensor],
    blocksize: int,
    nested_blocksize: int,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], b.shape[0]), x.new_empty(x.shape[0], a.shape[0])


@torch.library.custom_op("tunebuild::lora_linear_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    inner: Tensor,
    weight: Tensor,
    state: Sequence[Tensor],
    blocksize: int,
    nested_blocksize: int,
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``A`` and ``B``; the base is frozen."""
    wide, low = a.to(x.dtype), b.to(x.dtype) * scaling
    dense = _dense(weight, state, (blocksize, nested_blocksize), x.dtype, (b.shape[0], x.shape[1]))
    through = gradient @ low
    to_x = (through @ wide).addmm_(gradient, dense)
    return to_x, (through.T @ x).to(a.dtype), (gradient.T @ inner).to(b.dtype).mul_(scaling)


@_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    inner: Tensor,
    weight: Tensor,
    state: Sequence[Tensor],
    blocksize: int,
    nested_blocksize: int,
    a: Tensor,
    b: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(a), torch.empty_like(b)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, state, *ctx.blocksizes, _, a, b, ctx.scaling = inputs
    ctx.save_for_backward(x, output[1], weight, a, b, *state)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    x, inner, weight, a, b, *state = ctx.saved_tensors
    to_x, to_a, to_b = _backward(
        gradient.contiguous(), x, inner, weight, state, *ctx.blocksizes, a, b, ctx.scaling
    )
    return to_x, None, [None] * len(state), None, None, None, to_a, to_b, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _dense(
    weight: Tensor,
    state: Sequence[Tensor],
    blocksizes: tuple[int, int],
    dtype: torch.dtype,
    shape: tuple[int, int],
) -> Tensor:
    if not state:
        return weight
    from bitsandbytes.functional import QuantState, dequantize_4bit

    absmax, code, *nested = state
    options: dict[str, Any] = {"shape": torch.Size(shape), "code": code, "quant_type": "nf4", "dtype": dtype}
    if nested:
        offset, inner_absmax, inner_code = nested
        inner = QuantState(absmax=inner_absmax, code=inner_code, blocksize=blocksizes[1], dtype=torch.float32)
        options |= {"offset": offset, "state2": inner}
    return dequantize_4bit(weight, QuantState(absmax=absmax, blocksize=blocksizes[0], **options))


class _Fused:
    """The forward pass that both layers share; what it does not cover is left to PEFT's."""

    def _operands(self) -> _Operands:
        raise NotImplementedError

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        layer: Any = self
        if layer.disable_adapters or layer.merged or args or kwargs:
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        (name,) = layer.active_adapters
        weight, state, blocksizes = self._operands()
        output, _ = _forward(
            x.reshape(-1, x.shape[-1]),
            weight,
            state,
            *blocksizes,
            layer.get_base_layer().bias,
            layer.lora_A[name].weight,
            layer.lora_B[name].weight,
            layer.scaling[name],
        )
        return output.view(*x.shape[:-1], -1)


class FusedLinear(_Fused, lora.Linear):
    """For a base in its own precision."""

    def _operands(self) -> _Operands:
        return self.get_base_layer().weight, (), (0, 0)


class FusedLinear4bit(_Fused, lora.Linear4bit):
    """For a base in NF4."""

    def _operands(self) -> _Operands:
        weight = self.get_base_layer().weight
        quantized = weight.quant_state
        if not quantized.nested:
            return weight.data, (quantized.absmax, quantized.code), (quantized.blocksize, 0)
        inner = quantized.state2
        tensors = (quantized.absmax, quantized.code, quantized.offset, inner.absmax, inner.code)
        return weight.data, tensors, (quantized.blocksize, inner.blocksize)


def use_fused_layers(config: LoraConfig) -> None:
    """Have PEFT make fused layers where it would make its own."""
    from bitsandbytes.nn import Linear4bit

    # The first class that fits is taken, and a 4-bit layer is a linear layer, too.
    config._register_custom_module({Linear4bit: FusedLinear4bit, nn.Linear: FusedLinear})
