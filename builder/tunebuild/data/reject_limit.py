"""Refuses rows of which too many cannot be used, and says what to do about it."""

from __future__ import annotations

from tunebuild.data.rejects import Rejects
from tunebuild.errors import TunebuildError, fail
from tunebuild.grammar import counted, listed

# Codes of rejects whose cause is not in the rows: the error's code, what the template does, what to
# change, how.
_PROMPT = {
    "spec-system-refused": (
        "system-refused",
        "does not take a system turn, which prompt.system puts before every row",
        "prompt.system",
        "leave it out, or choose a prompt.template that takes a system turn",
    ),
    "system-refused": (
        "system-refused",
        "does not take the system turns of the rows",
        "prompt.template",
        "choose one that takes a system turn, or take these turns out of the rows",
    ),
    "reasoning-closed": (
        "reasoning-closed",
        "closes the block for reasoning before the answer, and the rows have reasoning",
        "prompt",
        "let the model reason (prompt.variables, prompt.plain_answers: close), or take the reasoning out of "
        "the rows",
    ),
    "no-reasoning": (
        "no-reasoning",
        "opens a block for reasoning, and the rows have none",
        "prompt.plain_answers",
        "say close, and the model learns to close the block at once; or prefill, and the prompt closes it",
    ),
}


def check_rejects(kept: int, rejects: Rejects, max_rejected: float) -> None:
    """Stop the build where too many rows were rejected, or none is left.

    Raises:
        TunebuildError: with the first rejects, one a line.
    """
    total = kept + rejects.bad
    if not total:
        raise no_rows(rejects)
    share = rejects.bad / total
    if kept and share <= max_rejected:
        return
    _refuse_prompt(rejects, total)
    raise fail(
        "rejected",
        f"{rejects.bad} of {counted(total, 'row')} cannot be used ({share:.1%}, "
        f"at most {max_rejected:.1%} may be rejected){listed(rejects.first_bad, rejects.bad)}",
        _remedy(rejects, kept),
        path="data.max_rejected" if kept else "data.train",
    )


def _remedy(rejects: Rejects, kept: int) -> str:
    """What to do about rejects. Where no row is left, no larger share of them helps."""
    ways = ["fix the rows"]
    if rejects.counts["answer-too-long"]:
        ways.append("raise tuning.max_length")
    if rejects.by_template > rejects.bad // 2:
        ways = ["choose another prompt.template (this one refuses most of them)", *ways]
    if kept:
        ways.append("raise data.max_rejected")
    return ", ".join(ways[:-1]) + f", or {ways[-1]}" if len(ways) > 1 else ways[0]


def no_rows(rejects: Rejects) -> TunebuildError:
    """There is nothing to train on: why not, and what to do where length is a reason."""
    why = ", ".join(f"{count:,} {code}" for code, count in sorted(rejects.counts.items()))
    message = f"no training row is left: {why}" if why else "there are no training rows"
    hint = "raise tuning.max_length" if rejects.counts["too-long"] else ""
    return fail("no-rows", message, hint, path="data.train")


def _refuse_prompt(rejects: Rejects, total: int) -> None:
    """Say it once where most of the rejects have one cause in the template."""
    for reason, (code, what, path, hint) in _PROMPT.items():
        count = rejects.counts[reason]
        shown = next((reject for reject in rejects.first_bad if reject.code == reason), None)
        if shown and 2 * count > rejects.bad:
            others = [reject for reject in rejects.first_bad if reject.code != reason]
            raise fail(
                code,
                f"the template {what}, so {count} of {counted(total, 'row')} cannot be used: "
                f"{shown.reason}{listed(others, rejects.bad - count)}",
                hint,
                path=path,
            )
