"""Where a tokenizer cuts every text in two, so that one encoding tells where the prompts in it end.

A control token ends what stands before it: both sides are encoded as if the other could be anything. So
where a prompt and a training text are the same up to a control token, their ids are the same up to it, and
only the few characters that every prompt has behind it are left to compare. This holds for tokens that the
tokenizer looks for in the raw text, takes without their surroundings and that no other token overlaps; each
is also tried out on the tokenizer at hand. Where there is none, the caller encodes the prompt itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product

from tokenizers import AddedToken, Tokenizer

# Longer ends hold what a user said, so they differ from row to row.
_LONGEST_TAIL = 200
_LEFT = ("", "a", "x y ", "\n", "\u00e9\U0001f9ed", " .")
_RIGHT = ("", "a", " b", "assistant\n", "\n\nc", "\u4f60 ", "'s")


class Seams:
    """Finds parts of a text in its ids.

    Args:
        tokenizer: the tokenizer.
        added: its added tokens by id.
        controls: the ones that a template is made of; all where it is ``None``. Others stand in texts, too,
            and tell nothing about where a prompt ends.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        added: Mapping[int, AddedToken],
        controls: frozenset[str] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._controls = controls
        self._added = {token.content: (token_id, token) for token_id, token in added.items()}
        looked_for = [spelling for spelling in self._added if controls is None or spelling in controls]
        self._any = re.compile("|".join(map(re.escape, sorted(looked_for, key=len, reverse=True))) or r"(?!)")
        self._last = ("\0", "")
        self.cuts = lru_cache(maxsize=256)(self._cuts)
        self._tail_ids = lru_cache(maxsize=64)(self._encoded_tail)

    def __reduce__(
        self,
    ) -> tuple[type[Seams], tuple[Tokenizer, Mapping[int, AddedToken], frozenset[str] | None]]:
        return Seams, (self._tokenizer, dict(self._added.values()), self._controls)

    def through(self, part: str, control: str, whole: str, ids: list[int]) -> int | None:
        """How many of a text's ids come from its beginning up to the last of a control token in ``part``.

        Args:
            part: a text that holds the token; up to it, it must be the beginning of ``whole``.
            control: the control token's spelling.
            whole, ids: a text and its ids.

        Returns:
            ``None`` where that cannot be told.
        """
        at = part.rfind(control)
        if at < 0 or not self.cuts(control) or not whole.startswith(part[: at + len(control)]):
            return None
        token_id = self._added[control][0]
        # Were it also made of other text, its places in the text would not tell its places in the ids.
        if whole.count(control) != ids.count(token_id):
            return None
        place = -1
        for _ in range(part.count(control)):
            place = ids.index(token_id, place + 1)
        return place + 1

    def prompt(self, prompt: str, whole: str, ids: list[int]) -> int | None:
        """How many of a text's ids are those of a prompt; ``None`` where it may not be its beginning.

        Args:
            prompt: a prompt's text.
            whole, ids: a text and its ids.
        """
        control, tail = self._last
        if not prompt.endswith(control + tail):
            found = [*self._any.finditer(prompt, max(0, len(prompt) - _LONGEST_TAIL))]
            if not found:
                return None
            control, tail = self._last = found[-1][0], prompt[found[-1].end() :]
        head = prompt[: len(prompt) - len(tail)]
        start = self.through(head, control, whole, ids)
        if start is None:
            return None
        behind = self._tail_ids(control, tail)
        end = start + len(behind)
        return end if ids[start:end] == behind else None

    def _encoded_tail(self, control: str, tail: str) -> list[int]:
        return self._encode(control + tail)[1:]

    def _cuts(self, control: str) -> bool:
        token_id, token = self._added[control]
        if token.lstrip or token.rstrip or token.single_word or token.normalized:
            return False
        if any(other != control and _overlap(other, control) for other in self._added):
            return False
        return self._encode(control) == [token_id] and all(
            self._encode(left + control + right)
            == self._encode(left + control) + self._encode(control + right)[1:]
            for left, right in product((*_LEFT, control), (*_RIGHT, control))
        )

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _overlap(one: str, other: str) -> bool:
    """Whether a text could hold both at places that share a character."""
    if one in other or other in one:
        return True
    shared = range(1, min(len(one), len(other)))
    return any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in shared)
