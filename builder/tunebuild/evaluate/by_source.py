"""The same figures by the source that a row stands in. The report knows the sources' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tunebuild.evaluate.models import Logprobs, targets
from tunebuild.evaluate.texts import Question, measure_texts


def by_source(
    origins: Sequence[int],
    rows: Sequence[dict[str, Any]],
    base: Logprobs,
    merged: Logprobs,
    questions: Sequence[Question],
    samples: Sequence[Mapping[str, str]],
) -> dict[str, dict[str, float]]:
    """Figures of each source that some row or question comes from.

    Args:
        origins: the number of the source of each row of the data, in their order.
        rows: what was asked, each with its number as ``index``.
        base, merged: what the models said there.
        questions: what was answered in writing.
        samples: their texts.

    Returns:
        By the source's number: ``rows`` and ``answers``, how many; and of those that there are, the figures.
    """
    counts = [len(targets([row])) for row in rows]
    parts = [
        [piece.split(counts) for piece in (said.log_probabilities, targets(rows))] for said in (base, merged)
    ]
    numbers = sorted({origins[row["index"]] for row in rows} | {origins[q.row] for q in questions})
    found = {}
    for number in numbers:
        mine = [n for n, row in enumerate(rows) if origins[row["index"]] == number]
        figures: dict[str, float] = {"rows": len(mine)}
        if mine:
            for name, (logs, wanted) in zip(("base", "eval"), parts, strict=True):
                log, want = torch.cat([logs[n] for n in mine]), torch.cat([wanted[n] for n in mine])
                figures[f"{name}_loss"] = float(-log.gather(1, want[:, None]).mean())
                figures[f"{name}_accuracy"] = float((log.argmax(-1) == want).float().mean())
        texts = [s for s, q in zip(samples, questions, strict=True) if origins[q.row] == number]
        figures["answers"] = len(texts)
        if texts:
            figures |= measure_texts([s["tuned"] for s in texts], [s["expected"] for s in texts])
        found[str(number)] = figures
    return found
