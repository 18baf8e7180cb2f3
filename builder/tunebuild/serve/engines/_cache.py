"""Keys and values with room to grow: a step writes its token in place instead of copying the whole cache."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tunebuild.serve.engines._prefix import Prefix

_ROOM = 64  # tokens that are made room for; copying the cache once in so many steps is next to nothing


class _Buffer:
    """One tensor of a layer, ``[rows, heads, length, width]``, in a larger one."""

    def __init__(self) -> None:
        self._all: torch.Tensor | None = None

    def append(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """``held`` and ``new`` in one tensor; ``held`` is a view of the buffer, or of any other origin.

        Whoever replaces the view, since rows came or went, need not tell: what lies elsewhere or has another
        shape is copied into a new buffer.
        """
        length, end = held.shape[2], held.shape[2] + new.shape[2]
        buffer = self._all
        if (
            buffer is None
            or buffer.data_ptr() != held.data_ptr()
            or buffer.shape[:2] != held.shape[:2]
            or buffer.shape[2] < end
        ):
            rows, heads, _, width = held.shape
            self._all = buffer = held.new_empty(rows, heads, end + _ROOM, width)
            buffer[:, :, :length] = held
        buffer[:, :, length:end] = new
        return buffer[:, :, :end]


class _Layer(DynamicLayer):
    def __init__(self) -> None:
        super().__init__()
        self._buffers = _Buffer(), _Buffer()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        else:
            self.keys = self._buffers[0].append(self.keys, key_states)
            self.values = self._buffers[1].append(self.values, value_states)
        return self.keys, self.values


class GrowingCache(DynamicCache):
    """A cache of such layers. It keeps all keys, of layers with a sliding window, too.

    Args:
        prefix: what every row begins with.
    """

    def __init__(self, prefix: Prefix) -> None:
        super().__init__()
        self.layer_class_to_replicate = _Layer
        for number, (keys, values) in enumerate(prefix):
            self.update(keys, values, number)
