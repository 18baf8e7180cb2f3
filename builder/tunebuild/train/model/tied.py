"""One adapter for an embedding and a head that are one tensor.

PEFT's ``ensure_weight_tying`` gives both the same first values, and two parameters that share memory: an
optimizer would change that memory twice a step, and whatever replaces a parameter's values parts them. Here
the head has no parameters of its own. It reads the embedding's, transposed, so gradients of both sides add
up, and one update is trained that the merge can add to the one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from torch import Tensor, nn
from torch.nn.functional import linear

from tunebuild.errors import fail
from tunebuild.models.ends import ends_of, is_named, is_tied

_ADAPTER = "default"


def tied_targets(model: Any, targets: Iterable[str]) -> list[str] | None:
    """Targets that name both ends of a tied model, where they name one of them; else ``None``.

    Raises:
        TunebuildError: PEFT does not know the ends of this architecture by their names.
    """
    targets = list(targets)
    ends = ends_of(model)
    if not is_tied(model) or not any(is_named(end, targets) for end in ends):
        return None
    if not any(end.rpartition(".")[2] in EMBEDDING_LAYER_NAMES for end in ends):
        raise fail(
            "lora-targets",
            f"{ends[0]} and {ends[1]} are one tensor, and PEFT cannot give both one adapter",
            "leave them out of the targets",
            path="tuning.lora.targets",
        )
    return [target for target in targets if not any(is_named(end, [target]) for end in ends)] + list(ends)


def share_factors(model: PeftModel) -> None:
    """Have the head's adapter be the embedding's."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    head.lora_A[_ADAPTER] = _Transposed(embedding.lora_embedding_B)
    head.lora_B[_ADAPTER] = _Transposed(embedding.lora_embedding_A)


def tensors_of_head(model: PeftModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors as PEFT itself writes them, where it has none of its own.

    Args:
        model: the trained model.
        tensors: the adapter's, by PEFT's names.
    """
    head = model.get_output_embeddings()
    factors = getattr(head, "lora_A", {})
    if _ADAPTER not in factors or not isinstance(factors[_ADAPTER], _Transposed):
        return {}
    names = {id(module): name for name, module in model.named_modules()}
    embedding, name = names[id(model.get_input_embeddings())], names[id(head)]
    return {
        f"{name}.lora_A.weight": tensors[f"{embedding}.lora_embedding_B"].T.contiguous(),
        f"{name}.lora_B.weight": tensors[f"{embedding}.lora_embedding_A"].T.contiguous(),
    }


def merged_in_memory(model: PeftModel) -> Any:
    """The model with its adapter merged by PEFT, which adds an update of tied ends twice if it is let."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if all(isinstance(end, LoraLayer) for end in ends):
        embedding, head = ends
        if head.get_base_layer().weight is embedding.get_base_layer().weight:
            head.merged_adapters.append(_ADAPTER)
    return model.merge_and_unload()


class _Transposed(nn.Module):
    """A factor of the head's adapter, which is one of the embedding's. Has no parameters of its own."""

    def __init__(self, factors: nn.ParameterDict) -> None:
        super().__init__()
        self._factors = [factors]  # in a list, or it would be one of this module's

    @property
    def weight(self) -> Tensor:
        """``[outputs, inputs]``."""
        factor: Tensor = self._factors[0][_ADAPTER]
        return factor.T

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., inputs]`` to ``[..., outputs]``."""
        return linear(inputs, self.weight)
