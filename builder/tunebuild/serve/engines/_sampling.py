"""Chooses the next tokens of a batch. No row's settings can reach another's choice, or stop it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tunebuild.serve.engines.request import Request, Token

if TYPE_CHECKING:
    from tunebuild.serve.engines._constraint import Matcher

_SOME = 256  # likeliest tokens that usually hold all of top_p; sorting just these is many times faster


class Sampler:
    """One row's choice of tokens; its random numbers are its own, so other rows do not change them.

    Args:
        request: settings, and the prompt that a repetition penalty looks at.
        matcher: of the request's constraint.
    """

    def __init__(self, request: Request, matcher: Matcher | None = None) -> None:
        self._sampling = request.sampling
        self._logprobs = request.logprobs
        self._matcher = matcher
        self._made: Counter[int] = Counter()
        self._prompt = sorted(set(request.prompt)) if request.sampling.repetition_penalty != 1.0 else []
        self._bias = dict(request.sampling.logit_bias)
        s = request.sampling
        self._counts = bool(s.presence_penalty or s.frequency_penalty or s.repetition_penalty != 1.0)
        self._random = torch.Generator()
        if s.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(s.seed % 2**63)

    @property
    def plain(self) -> bool:
        """Whether it takes the likeliest token and asks for nothing else."""
        return (
            self._sampling.greedy
            and self._logprobs is None
            and self._matcher is None
            and not self._counts
            and not self._bias
        )

    def choose(self, logits: torch.Tensor) -> Token:
        """The next token from logits ``[vocabulary]``.

        Raises:
            ValueError: no token is possible.
        """
        logits = logits.to("cpu", torch.float32)
        scores = self._adjusted(logits)
        top = scores.max()
        if not torch.isfinite(top):
            raise ValueError("the model gave no token a finite score")
        token = int(scores.argmax()) if self._sampling.greedy else self._draw(scores)
        if self._counts:
            self._made[token] += 1
        if self._matcher is not None:
            self._matcher.accept(token)
        return self._with_logprobs(token, logits)

    def _adjusted(self, logits: torch.Tensor) -> torch.Tensor:
        if not (self._bias or self._counts or self._matcher is not None):
            return logits
        scores, s = logits.clone(), self._sampling
        if self._bias:
            ids = torch.tensor(list(self._bias))
            scores[ids] += torch.tensor(list(self._bias.values()))
        if s.repetition_penalty != 1.0 and (seen := sorted({*self._prompt, *self._made})):
            ids = torch.tensor(seen)
            old = scores[ids]
            scores[ids] = torch.where(old > 0, old / s.repetition_penalty, old * s.repetition_penalty)
        if self._made and (s.presence_penalty or s.frequency_penalty):
            ids = torch.tensor(list(self._made))
            counts = torch.tensor(list(self._made.values()), dtype=torch.float32)
            scores[ids] -= s.frequency_penalty * counts + s.presence_penalty
        if self._matcher is not None:
            scores.masked_fill_(~self._matcher.allowed(len(scores)), -torch.inf)
        return scores

    def _draw(self, scores: torch.Tensor) -> int:
        s = self._sampling
        scores = scores / s.temperature
        top_k = s.top_k if 0 < s.top_k < len(scores) else 0
        if s.top_p >= 1.0 and not top_k and s.min_p <= 0.0:
            return self._pick(scores.softmax(0))
        probabilities = scores.softmax(0)
        if s.min_p > 0.0:
            scores = scores.masked_fill(probabilities < s.min_p * probabilities.max(), -torch.inf)
            probabilities = scores.softmax(0)
        best, ids = torch.topk(scores, top_k or min(_SOME, len(scores)))
        mass = probabilities[ids]
        if top_k:
            mass = best.softmax(0)
        elif float(mass.sum()) < s.top_p and len(best) < len(scores):
            mass, ids = torch.sort(probabilities, descending=True, stable=True)
        # Keep a token while the ones before it have not reached top_p. The likeliest is always kept, however
        # small top_p is: in 32 bits it may be 0.
        keep = mass.cumsum(0) - mass < s.top_p
        keep[0] = True
        return int(ids[self._pick(mass * keep)])

    def _pick(self, weights: torch.Tensor) -> int:
        """An index with a probability in proportion to its weight."""
        # The race of exponential clocks: as torch.multinomial, without its limit and its copies.
        clocks = torch.empty_like(weights).exponential_(generator=self._random)
        return int((weights / clocks.clamp_min_(1e-30)).argmax())

    def _with_logprobs(self, token: int, logits: torch.Tensor) -> Token:
        if self._logprobs is None:
            return Token(token)
        logprobs = logits.log_softmax(0)
        best, ids = torch.topk(logprobs, min(self._logprobs, len(logprobs)))
        top = tuple(zip(ids.tolist(), best.tolist(), strict=True))
        return Token(token, float(logprobs[token]), top)


def choose_all(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Token | Exception]:
    """The next token of every row, or what is wrong with that row.

    Args:
        samplers: one a row.
        logits: ``[rows, vocabulary]``.
    """
    likeliest = logits.argmax(-1).tolist() if any(s.plain for s in samplers) else []
    finite = torch.isfinite(logits.amax(-1)).tolist()
    chosen: list[Token | Exception] = []
    for row, sampler in enumerate(samplers):
        if not finite[row]:
            chosen.append(ValueError("the model gave no token a finite score"))
        elif sampler.plain:
            chosen.append(Token(likeliest[row]))
        else:
            try:
                chosen.append(sampler.choose(logits[row]))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's alone
                chosen.append(error)
    return chosen
