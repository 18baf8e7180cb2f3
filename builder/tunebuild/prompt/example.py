"""A training sample: a conversation's ids, and which of them are supervised."""

from __future__ import annotations

from dataclasses import dataclass

from tunebuild.prompt.messages import Message

#: The label of a token without loss: the convention of PyTorch and transformers.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """A training sample.

    Attributes:
        ids: token ids of the whole conversation.
        supervised: half-open ranges ``[start, end)`` of ``ids`` that are supervised: each assistant turn from
            the first token that the model must produce to its end-of-turn token.
    """

    ids: list[int]
    supervised: tuple[tuple[int, int], ...]

    @property
    def labels(self) -> list[int]:
        """``ids`` with ``IGNORED`` at every position that carries no loss."""
        labels = [IGNORED] * len(self.ids)
        for start, end in self.supervised:
            labels[start:end] = self.ids[start:end]
        return labels


#: Each sample of a conversation, with the turns that it holds.
Samples = list[tuple[list[Message], Example]]
