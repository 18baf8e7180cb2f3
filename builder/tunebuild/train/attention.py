"""Attention over rows that lie behind one another in one sequence and do not see each other.

Registered with transformers under :data:`PACKED`. On a card it is FlashAttention-2 as torch ships it;
elsewhere each document goes through torch's own attention by itself. Neither builds a mask of the whole
sequence, whose cost grows with its square.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from tunebuild.errors import fail

#: The name under which transformers knows it.
PACKED = "tunebuild_packed"

# How far a document's logits may lie from what they are without neighbours, relative to their size. A 7B
# shape with random weights was seen to differ by 0.043 in bfloat16 on a card, small ones in float32 by 1e-7.
_ROUNDING = 0.1

# Up to torch 2.11 fewer key-value heads need no word; later ones want it said.
_NAMES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document.

    Args:
        module: the attention layer.
        query: ``[1, heads, tokens, head]``; ``key`` and ``value`` may have fewer heads.
        key: see ``query``.
        value: see ``query``.
        attention_mask: none; documents are told apart by where they begin.
        cu_seq_lens_q: ``[documents + 1]``, int32: where each document begins, and the end.
        max_length_q: length of the longest document.
        scaling: of the products; one over the root of the head's width if left out.
        sliding_window: how many tokens back a token sees, itself included.
        dropout: must be 0.
        options: what other models pass; unless it is empty, they need an attention that this is not.

    Returns:
        ``[1, tokens, heads, head]`` and no weights.
    """
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown or dropout or attention_mask is not None:
        what = ", ".join(unknown) or ("attention dropout" if dropout else "a mask")
        raise NotImplementedError(f"packed attention has no {what}")
    if cu_seq_lens_q is None or max_length_q is None:
        raise ValueError("packed attention needs rows that are packed")
    window = None if sliding_window is None or sliding_window >= max_length_q else sliding_window
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # [tokens, heads, head]
    attend = _flash if query.is_cuda else _one_by_one
    return attend(q, k, v, cu_seq_lens_q, max_length_q, scaling, window)[None], None


AttentionInterface.register(PACKED, packed_attention)


def _flash(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    options: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if _NAMES_GROUPS and q.shape[1] != k.shape[1]:
        options["enable_gqa"] = True
    output = varlen_attn(q, k, v, starts, starts, longest, longest, **options)
    assert isinstance(output, Tensor)
    return output


def _one_by_one(
    q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float | None, window: int | None
) -> Tensor:
    lengths = starts.diff().tolist()
    documents = []
    for one in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        query, key, value = (tensor.transpose(0, 1)[None] for tensor in one)
        mask = None
        if window is not None and len(one[0]) > window:
            at = torch.arange(len(one[0]), device=q.device)
            back = at[:, None] - at
            mask = (back >= 0) & (back < window)
        output = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        documents.append(output[0].transpose(0, 1))
    return torch.cat(documents)


def try_packing(model: PreTrainedModel) -> str:
    """Switch a model to packed attention if that keeps documents apart; otherwise leave it as it is.

    It is tried, not looked up: a second document is changed before and behind the first, and the first one's
    outputs must not move. So a layer that mixes tokens in another way than attention is noticed as well.

    Returns:
        Why rows cannot be packed; empty if they can.
    """
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} does not take an attention function"
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    try:
        if documents_are_apart(model):
            return ""
        reason = "documents would see each other"
    except NotImplementedError as error:
        reason = str(error)
    model.set_attn_implementation(before)
    return reason


def documents_are_apart(model: PreTrainedModel) -> bool:
    """Whether a document between two others gives what it gives alone, and no gradient reaches the others."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    before, one, behind = ((torch.arange(9) + first) % vocabulary for first in (1, 11, 23))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone, _ = _outputs(model, [one])
        packed, inputs = _outputs(model, [before, one, behind])
        middle = packed[len(before) : -len(behind)]
        (gradient,) = torch.autograd.grad(middle.square().sum(), inputs)
    finally:
        model.train(was_training)
    others = torch.cat([gradient[0, : len(before)], gradient[0, -len(behind) :]])
    # The gradient is exact. The values are not: in 16 bits, a product of another size rounds otherwise.
    difference = (middle.detach() - alone).norm() / alone.norm()
    return bool(difference < _ROUNDING) and not others.any()


def _outputs(model: PreTrainedModel, documents: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits ``[tokens, vocabulary]`` of packed documents, and the embeddings that went in."""
    batch = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in pack_tensors(documents).items()
    }
    inputs = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    logits: Tensor = model(inputs_embeds=inputs, use_cache=False, **batch).logits
    return logits[0].float(), inputs


def pack_tensors(documents: list[Tensor]) -> dict[str, Any]:
    """Lay token ids of documents behind one another, with what packed attention needs to know."""
    if not documents:
        raise fail("no-rows", "nothing to pack")
    lengths = torch.tensor([len(d) for d in documents])
    starts = nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(lengths.max())
    return {
        "input_ids": torch.cat(documents)[None],
        "position_ids": torch.cat([torch.arange(n) for n in lengths.tolist()])[None],
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": longest,
        "max_length_k": longest,
    }
