"""The loss through a head that is trained.

TRL multiplies hidden states by the head's weight, in tiles, and never calls the head: an adapter of it
would not be trained, and TRL refuses one. Here the head itself is called, for some tokens at a time whose
logits are recomputed in the backward pass. So what is trained is what PEFT computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from tunebuild.prompt.example import IGNORED
from tunebuild.train.plan.estimate import HEAD_TILE

_Scores = tuple[Tensor, Tensor, Tensor]


def trains_head(model: Any) -> bool:
    """Whether the head has an adapter."""
    return isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer)


@contextmanager
def head_unseen(model: Any) -> Iterator[None]:
    """Inside, a model does not name its head, which TRL refuses to train through its own loss."""
    model.__dict__["get_output_embeddings"] = lambda: None
    try:
        yield
    finally:
        del model.__dict__["get_output_embeddings"]


def call_head(model: Any) -> None:
    """Have a causal language model answer ``fused_lm_head=True`` by calling its head.

    It takes and answers what TRL's forward does, which goes on answering everything else.
    """
    others = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head or labels is None:
            return others(*args, **kwargs, **({} if labels is None else {"labels": labels}))
        text = self.config.get_text_config()
        if getattr(text, "output_router_logits", False):
            kwargs.setdefault("output_router_logits", True)
        outputs = self.base_model(*args, **{**kwargs, "use_cache": False})
        hidden, wanted = outputs.last_hidden_state[:, :-1], labels[:, 1:]
        mask = wanted != IGNORED
        finish = partial(_finish, text)
        log_probs, entropy, top1 = _score(self.get_output_embeddings(), finish, hidden[mask], wanted[mask])
        return FusedCausalLMOutput(
            log_probs=_placed(log_probs, mask),
            entropy=_placed(entropy, mask),
            is_top1=_placed(top1, mask),
            label_mask=mask,
            aux_loss=_balance(text, outputs, kwargs) if kwargs.get("output_router_logits") else None,
        )

    model.forward = MethodType(forward, model)


def _score(head: Any, finish: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> _Scores:
    """Log-probability, entropy, and whether it is the likeliest, of each label ``[tokens]``."""
    count = max(1, HEAD_TILE // int(head.get_base_layer().weight.shape[0]))
    tiles: list[_Scores] = [
        checkpoint(_score_tile, head, finish, one, wanted, use_reentrant=False)
        for one, wanted in zip(hidden.split(count), labels.split(count), strict=True)
        if len(wanted)
    ]
    if not tiles:  # no label: a zero that still has a gradient
        nothing = hidden.sum(-1).float()
        return nothing, nothing.detach(), nothing.detach().bool()
    log_probs, entropy, top1 = zip(*tiles, strict=True)
    return torch.cat(log_probs), torch.cat(entropy), torch.cat(top1)


def _score_tile(head: Any, finish: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> _Scores:
    logits = finish(head(hidden).float())
    every = logits.logsumexp(-1)
    log_probs = logits.gather(-1, labels[:, None])[:, 0] - every
    with torch.no_grad():
        entropy = every - ((logits - every[:, None]).exp() * logits).sum(-1)
        return log_probs, entropy, logits.argmax(-1) == labels


def _finish(config: Any, logits: Tensor) -> Tensor:
    """What models do to logits behind their head, by the names of their configuration."""
    scale = next(
        (
            value
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if (value := getattr(config, name, None)) is not None
        ),
        None,
    )
    if scale is None and (divisor := getattr(config, "logits_scaling", None)) is not None:
        scale = divisor if config.model_type == "hyperclovax" else 1 / divisor
    if scale is not None:
        logits = logits * scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits


def _placed(values: Tensor, mask: Tensor) -> Tensor:
    """Values of the supervised tokens at their places, and zeros at all others."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _balance(config: Any, outputs: Any, kwargs: dict[str, Any]) -> Any:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    return load_balancing_loss_func(
        outputs.router_logits, config.num_experts, config.num_experts_per_tok, kwargs.get("attention_mask")
    )
