"""One request in vLLM's words, and its output in ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from inspect import signature
from typing import Any

from tunebuild.serve.engines.request import Finish, Request, Token


@cache  # asked with every request
def _knows_interval() -> bool:
    from vllm import SamplingParams

    return "stream_interval" in signature(SamplingParams).parameters


def sampling_parameters(request: Request, ends: frozenset[int]) -> Any:
    """A request's settings as vLLM's ``SamplingParams``.

    Args:
        request: what is asked for.
        ends: the tokenizer's end tokens: a constraint that is complete allows only those.

    Raises:
        ValueError: vLLM does not take them.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling, constraint = request.sampling, request.constraint
    structured = None
    if constraint is not None:
        key = "json" if constraint.kind == "json_schema" else "grammar"
        structured = StructuredOutputsParams(**{key: constraint.text})
    # Of an answer that nobody reads before its end, vLLM then hands out the first token and the rest.
    # Its versions before that setting hand out each.
    patience = {"stream_interval": request.max_tokens} if request.whole and _knows_interval() else {}
    return SamplingParams(
        temperature=0.0 if sampling.greedy else sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        seed=None if sampling.seed is None else sampling.seed % 2**63,
        max_tokens=request.max_tokens,
        stop_token_ids=sorted(request.stop_ids | (ends if constraint else frozenset())),
        ignore_eos=True,  # the stop ids are the contract's, not the tokenizer's
        logprobs=request.logprobs,
        detokenize=False,
        structured_outputs=structured,
        output_kind=RequestOutputKind.DELTA,
        **patience,
    )


def token_of(token: int, logprobs: Mapping[int, Any] | None, wanted: int | None) -> Token:
    """A token with its log-probability and those of the ``wanted`` likeliest, where asked for."""
    if logprobs is None or wanted is None:
        return Token(token)
    ranked = sorted((entry.rank, id_, entry.logprob) for id_, entry in logprobs.items())
    # The chosen token is among them whatever its rank.
    top = tuple((id_, float(logprob)) for rank, id_, logprob in ranked if rank <= wanted)
    return Token(token, logprob_of(logprobs, token), top)


def logprob_of(at: Mapping[int, Any], token: int) -> float:
    """A token's log-probability, among those of its place."""
    return float(at[token].logprob)


def finish_of(reason: str) -> Finish:
    """Why an answer ended."""
    return {"stop": Finish.STOP, "length": Finish.LENGTH}.get(reason, Finish.CANCELLED)
