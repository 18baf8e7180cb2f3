"""What is done to a model's decoder layers before training: computing activations again, and compiling."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tunebuild.train.plan.settings import Execution


def decoder_layers(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The layers that a model repeats, in order."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def prepare_layers(model: PreTrainedModel, execution: Execution) -> None:
    """Have the first layers compute their activations again, and all of them compiled, as was planned.

    Layers are compiled one by one, for sequences of any length: they share one set of kernels, made once.
    """
    layers = decoder_layers(model)
    if execution.checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        for number, layer in enumerate(layers):
            layer.gradient_checkpointing = number < execution.checkpointed
    if execution.compiled:
        for layer in layers:
            layer.compile(dynamic=True)
