"""Holds the engine that serves against what the build measured, before a request is taken.

An engine can load, answer fluently, and yet serve another model: an adapter that does nothing, an adapter of
an earlier build, other weights, another precision. So the endpoint is ready only once its own engine has
reproduced log-probabilities and answers that the build stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from tunebuild.serve.engines.generation import EngineFailed, Generation
from tunebuild.serve.engines.request import Finish, Request
from tunebuild.serve.parity import TOLERANCE, Parity, Row, Verdict, Written, compare


class Scoring(Protocol):
    """What of an engine is needed."""

    @property
    def dtype(self) -> str:
        """Precision of the weights in memory."""

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each row's tokens after the first."""

    def submit(self, generation: Generation) -> None:
        """Take an answer."""


async def check_parity(
    engine: Scoring, parity: Parity, dtype: str, context: int, stop_ids: frozenset[int]
) -> Verdict:
    """Have the engine reproduce what was measured. Runs on the event loop of the engine.

    Args:
        engine: a started engine.
        parity: what the build measured.
        dtype: the precision that the bundle asks for.
        context: longest prompt and answer together; rows are cut to it.
        stop_ids: what ends an answer.
    """
    tolerance = TOLERANCE["float32" if dtype == parity.dtype == "float32" else "bfloat16"]
    if engine.dtype != dtype:
        problem = f"the engine computes in {engine.dtype}, not in {dtype}"
        return Verdict(0, 0.0, tolerance, None, 0, problem)
    rows = [cut for row in parity.rows if (cut := _cut(row, context - 1)).at]
    try:
        scores = await engine.score([row.ids for row in rows])
        served = [score[at - 1] for row, score in zip(rows, scores, strict=True) for at in row.at]
        verdict = compare(
            served, [x for row in rows for x in row.tuned], [x for row in rows for x in row.base], tolerance
        )
        if verdict.problem:
            return verdict
        answers = [a for a in parity.answers if len(a.prompt) + a.max_tokens < context]
        for written in answers:
            if problem := await _unlike(engine, written, stop_ids, tolerance):
                return replace(verdict, answers=len(answers), problem=problem)
    except EngineFailed as error:
        return Verdict(0, 0.0, tolerance, None, 0, str(error))
    return replace(verdict, answers=len(answers))


async def _unlike(engine: Scoring, written: Written, stop_ids: frozenset[int], tolerance: float) -> str:
    """How an answer differs from the one that was written; empty if it does not.

    Two tokens can be as likely as each other, and rounding decides: so the first token that differs may, if
    the engine itself finds the stored one about as likely.
    """
    generation = Generation(Request(written.prompt, written.max_tokens, stop_ids))
    engine.submit(generation)
    made = [token.id async for token in generation]
    if made == written.answer:
        return ""
    same = next(
        (n for n, (a, b) in enumerate(zip(made, written.answer, strict=False)) if a != b),
        min(len(made), len(written.answer)),
    )
    if same == min(len(made), len(written.answer)) and generation.finish is Finish.CANCELLED:
        return "the engine broke off an answer"
    # What ended the shorter one stands for the token that it did not go on with.
    end = min(stop_ids)
    ours = made[same] if same < len(made) else end
    theirs = written.answer[same] if same < len(written.answer) else end
    before = written.prompt + written.answer[:same]
    a, b = await engine.score([[*before, ours], [*before, theirs]])
    if a[-1] - b[-1] <= 4 * tolerance:
        return ""
    return f"it does not give the build's answer to a held-out prompt: token {same + 1} differs"


def _cut(row: Row, length: int) -> Row:
    kept = sum(at < length for at in row.at)
    return Row(ids=row.ids[:length], at=row.at[:kept], tuned=row.tuned[:kept], base=row.base[:kept])
