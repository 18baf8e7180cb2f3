"""Constraints on the text of answers, by llguidance: which tokens may come next."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from llguidance import LLMatcher, LLTokenizer

from tunebuild.serve.engines.grammar import compile_grammar
from tunebuild.serve.engines.request import Constraint


class Matcher:
    """Follows one answer. Belongs to one thread."""

    def __init__(self, matcher: LLMatcher, stop_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._stop_ids = sorted(stop_ids)

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """``[vocabulary]`` of bool: tokens that may come next; stop ids only where the text is complete.

        Raises:
            ValueError: the grammar has become too complex, or none is possible.
        """
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0
        if error := self._matcher.get_error():
            raise ValueError(f"the grammar cannot be followed: {error.splitlines()[0]}")
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        shared = min(vocabulary, len(mask))
        allowed[:shared] = mask[:shared]
        stops = [i for i in self._stop_ids if i < vocabulary]
        allowed[stops] = self._matcher.is_accepting()
        return allowed

    def accept(self, token: int) -> None:
        """Note what was chosen.

        Raises:
            ValueError: it was not allowed.
        """
        if token in self._stop_ids:
            return
        if not self._matcher.consume_token(token):
            raise ValueError(f"the grammar refuses the token: {self._matcher.get_error()}")


class Constraints:
    """Compiles constraints for one tokenizer. Safe to use from several threads.

    Args:
        tokenizer: a ``tokenizer.json``.
        vocabulary: logits of the model.
    """

    def __init__(self, tokenizer: Path, vocabulary: int) -> None:
        self._path = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._tokenizers: dict[frozenset[int], LLTokenizer] = {}

    def matcher(self, constraint: Constraint, stop_ids: frozenset[int]) -> Matcher:
        """Follows an answer from its first token.

        Raises:
            ValueError: the constraint cannot be compiled.
        """
        matcher = LLMatcher(self._tokenizer(stop_ids), compile_grammar(constraint), log_level=0)
        if error := matcher.get_error():
            raise ValueError(f"the grammar cannot be compiled: {error.splitlines()[0]}")
        return Matcher(matcher, stop_ids)

    def _tokenizer(self, stop_ids: frozenset[int]) -> LLTokenizer:
        with self._lock:
            if stop_ids not in self._tokenizers:
                self._tokenizers[stop_ids] = LLTokenizer(
                    self._path.read_text("utf-8"), n_vocab=self._vocabulary, eos_token=sorted(stop_ids)
                )
            return self._tokenizers[stop_ids]
