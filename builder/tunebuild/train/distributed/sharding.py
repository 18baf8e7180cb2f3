"""Weights, gradients and optimizer state that are split over processes, by accelerate's FSDP2."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from trl import SFTConfig

from tunebuild.errors import fail
from tunebuild.train.model.layers import decoder_layers
from tunebuild.train.plan.settings import TrainSettings


def shard_by_layers(model: PreTrainedModel) -> dict[str, Any]:
    """Arguments of transformers with which the trainer splits a model, and gathers it a layer at a time.

    Raises:
        TunebuildError: it is not known which layers the model repeats.
    """
    layers = sorted({type(layer).__name__ for layer in decoder_layers(model)})
    if not layers:
        text = f"it is not known which layers {type(model).__name__} repeats"
        raise fail("shard", text, "remove it", path="tuning.shard")
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "transformer_layer_cls_to_wrap": layers,
            # Each process writes its own part of a checkpoint.
            "state_dict_type": "SHARDED_STATE_DICT",
        },
        # Otherwise the micro-batches of a step would add up whole gradients in each process.
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def compute_in(arguments: SFTConfig, settings: TrainSettings) -> None:
    """Have layers gathered in the precision of products, and their gradients summed in 32 bits.

    Autocast would keep a copy in 16 bits of every layer until the backward pass, whole in each process.
    """
    arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
        param_dtype=getattr(torch, settings.compute_dtype), reduce_dtype=torch.float32
    )


def split_on_cpu(accelerator: Accelerator, arguments: SFTConfig) -> None:
    """Have accelerate split what processes on CPUs train.

    It looks at its plugin only where there are cards (``AcceleratorState``, seen in 1.15); what follows from
    its state is the same for both.
    """
    state = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    state.distributed_type = DistributedType.FSDP


def gather(model: nn.Module) -> dict[str, Tensor]:
    """What was trained, whole, by name; empty in all processes but the first. All of them must call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    whole: dict[str, Any] = get_model_state_dict(model, options=options)
    return whole


def own_part(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
