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

# How far a document's logits may lie from what they are without neighbors, relative to their size. A 7B
# shape with random weights was seen to differ by 0.043 in bfloat16 on a card, small ones in float32 by 1e-7.
_ROUNDING = 0.1

# Tokens of the document that is tried; windows of thousands are left to the attention function's own word.
_LONGEST_TRIED = 600

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
    device = query.device.type
    # Autocast knows torch's own attention; here it has to be asked. Rotating them has made query and key of
    # the weights' 32 bits, for which there is no kernel.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    q, k, v = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value))  # [tokens, heads, head]
    attend = _flash if query.is_cuda and dtype != torch.float32 else _one_by_one
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
    """Switch a model to packed attention if that computes the same and keeps documents apart.

    It is tried, not looked up: a document between two others must give what the model gives with its own
    attention for that document alone, and no gradient of it may reach the others. So a layer that mixes
    tokens in another way than attention is noticed, and a mask that knows more than what comes before.

    Returns:
        Why rows cannot be packed, with the model left as it was; empty if they can.
    """
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} does not take an attention function"
    own = model.config._attn_implementation
    documents = _documents(model)
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            alone = model(input_ids=documents[1][None].to(model.device), use_cache=False).logits[0].float()
        model.set_attn_implementation(PACKED)
        reason = "" if _is_apart(model, documents, alone) else "documents would see each other, or too little"
        model.train()
        with torch.no_grad():  # some drop out attention's weights, but only in training
            _outputs(model, documents[:1])
    except NotImplementedError as error:
        reason = str(error)
    finally:
        model.train(was_training)
    if reason:
        model.set_attn_implementation(own)
    return reason


def _documents(model: PreTrainedModel) -> list[Tensor]:
    """Three of random tokens; the second is longer than any window or chunk that the attention has."""
    config = model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    wanted = 2 * max((size for size in sizes if size), default=0) + 9
    most = min(_LONGEST_TRIED, int(getattr(config, "max_position_embeddings", None) or wanted))
    chance = torch.Generator().manual_seed(0)
    lowest = int(config.vocab_size) // 4  # the padding token, whose embedding is zero, is below
    return [
        torch.randint(lowest, int(config.vocab_size), (length,), generator=chance)
        for length in (9, min(wanted, most), 9)
    ]


def _is_apart(model: PreTrainedModel, documents: list[Tensor], alone: Tensor) -> bool:
    """Whether the second of three documents gives what it gave alone, and no gradient reaches the others."""
    before, middle, behind = documents
    packed, inputs = _outputs(model, documents)
    own = packed[len(before) : len(before) + len(middle)]
    (gradient,) = torch.autograd.grad(own.square().sum(), inputs)
    others = torch.cat([gradient[0, : len(before)], gradient[0, -len(behind) :]])
    # The gradient is exact. The values are not: in 16 bits, a product of another size rounds otherwise.
    difference = (own.detach() - alone).norm() / alone.norm()
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
