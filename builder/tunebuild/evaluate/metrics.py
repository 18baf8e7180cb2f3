"""Figures out of log-probabilities, and the gates that they must pass. No library but torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.merge.strategies import Strategy
from tunebuild.spec.exports import ExportGates
from tunebuild.spec.gates import GatesSpec
from tunebuild.spec.section import Section

if TYPE_CHECKING:
    import torch

    from tunebuild.evaluate.models import Logprobs

#: Exit status of a build that a gate refuses.
REFUSED = 3

#: Name of a figure, as in ``gates`` -> its value.
Metrics = Mapping[str, float]

# Chosen from the figures in docs/proof.md.
_LOST = 0.05
_LIGHT = 0.5
_ROUNDING = 0.03  # nats a token

_NOTHING = 1e-9  # nats; rounding alone is more


def measure(base: Logprobs, trained: Logprobs, merged: Logprobs, targets: torch.Tensor) -> dict[str, float]:
    """All figures. Divergences are means over positions, in nats.

    ``merge_kl`` is from the model that was trained to the merged one; ``merge_top1`` the share of positions
    where both prefer the same token; ``merge_lost`` is ``merge_kl`` as a share of the divergence from the
    trained model to its base, which is what training changed: 0 is a perfect merge, 1 is the base.
    """
    kl, moved = divergence(trained, merged), divergence(trained, base)
    same = trained.log_probabilities.argmax(-1) == merged.log_probabilities.argmax(-1)
    figures = {
        "merge_kl": kl,
        "merge_top1": float(same.float().mean()),
        "merge_lost": kl / moved if moved > _NOTHING else 0.0,
        "training_kl": moved,
    }
    for name, said in (("base", base), ("eval", merged)):
        loss = -said.log_probabilities.gather(1, targets[:, None]).mean()
        right = said.log_probabilities.argmax(-1) == targets
        figures[f"{name}_loss"] = float(loss)
        figures[f"{name}_perplexity"] = math.exp(min(float(loss), 700.0))
        figures[f"{name}_accuracy"] = float(right.float().mean())
    return figures


def measure_regression(base: Logprobs, merged: Logprobs) -> dict[str, float]:
    """How far the merged model has moved from the base where the base answers general prompts.

    ``regression_kl`` is the divergence from the base in nats a token; ``regression_top1`` the share of the
    base's tokens that the merged model would write, too.
    """
    same = base.log_probabilities.argmax(-1) == merged.log_probabilities.argmax(-1)
    return {"regression_kl": divergence(base, merged), "regression_top1": float(same.float().mean())}


def lost_limit(strategy: Strategy, method: str, moved: float) -> float:
    """The share of a training that a merge may lose where the spec says ``auto``.

    A merge that adds the update to what was trained loses by rounding alone, which is an amount and no
    share: it weighs more in a training that moved the model little. After ``qlora`` the published weights
    are another base.

    Args:
        strategy: of the merge.
        method: of the training.
        moved: divergence of the trained model from its base, in nats a token.
    """
    if method == "qlora" and strategy == "original":
        return _LIGHT
    return max(_LOST, min(_LIGHT, _ROUNDING / max(moved, _NOTHING)))


def check_gates(gates: GatesSpec, metrics: Metrics) -> None:
    """Hold a build's figures against the limits.

    Raises:
        TunebuildError: with exit status 3, every figure that is beyond its limit.
    """

    def advice(name: str) -> str:
        if name == "merge_lost" and gates.merge_kl and metrics["training_kl"] <= gates.merge_kl.max:
            # The base itself would pass for the trained model, so rounding looms large.
            moved = f"training moved the model by {metrics['training_kl']:.2g} nats a token only"
            return f"{moved}: raise tuning.epochs or tuning.learning_rate. No image was made"
        return _hint(name)

    _check(_limits(gates), metrics, "gates", advice)


def check_export_gates(gates: ExportGates, metrics: Metrics, path: str) -> None:
    """Hold an export's figures against its limits.

    Args:
        gates: the limits.
        metrics: figures of the exported files, as ``export_figures`` names them.
        path: where the limits stand in the spec.

    Raises:
        TunebuildError: with exit status 3, every figure that is beyond its limit.
    """
    limits = ((name, limit) for name, limit in gates if isinstance(limit, Section))
    hint = "use more bits, smaller groups or more samples, or move the gate. Nothing was written"
    _check(limits, metrics, path, lambda name: hint)


def _check(
    limits: Iterable[tuple[str, Section]], metrics: Metrics, path: str, advice: Callable[[str], str]
) -> None:
    problems = []
    for name, limit in limits:
        value = metrics.get(name)
        if value is None:
            hint = "raise evaluation.samples, or take the gate out"
            if name.startswith("tasks."):
                measured = (f"gates.{known}" for known in metrics if known.startswith("tasks."))
                hint = f"there are: {', '.join(measured)}"
            problems.append(Diagnostic("gate", "was not measured", hint, f"{path}.{name}"))
            continue
        low, high = getattr(limit, "min", None), getattr(limit, "max", None)
        if high == "auto":
            high = metrics.get(f"{name}_limit", _LIGHT)
        too_low = low is not None and not value >= low  # also where it is not a number
        if too_low or (high is not None and not value <= high):
            allowed = f"at least {low:g}" if too_low else f"at most {high:g}"
            text = f"{value:.4g}, {allowed} is allowed"
            problems.append(Diagnostic("gate", text, advice(name), f"{path}.{name}"))
    if problems:
        raise TunebuildError(tuple(problems), REFUSED)


def export_figures(figures: Metrics) -> dict[str, float]:
    """Figures of :func:`measure` as the gates of exports name them: those of a merge without saying so."""
    wanted = ("merge_kl", "merge_lost", "merge_top1", "eval_loss", "eval_accuracy", "eval_perplexity")
    return {name.removeprefix("merge_"): figures[name] for name in wanted}


def _limits(gates: GatesSpec) -> Iterator[tuple[str, Section]]:
    """The limits that are set, by the name of the figure."""
    yield from ((name, limit) for name, limit in gates if isinstance(limit, Section))
    for task, limits in gates.tasks.items():
        yield from ((f"tasks.{task}.{metric}", limit) for metric, limit in limits.items())


def divergence(one: Logprobs, other: Logprobs) -> float:
    """Mean over positions of the Kullback-Leibler divergence from one model to the other, in nats."""
    a, b = one.log_probabilities, other.log_probabilities
    return float((a.exp() * (a - b)).sum(-1).clamp(min=0).mean())


def _hint(name: str) -> str:
    if name.startswith("merge"):
        return "what would be served is not the trained model; try another merge.strategy. No image was made"
    if name.startswith("regression"):
        return "train less, or mix general rows into the data, or move the gate. No image was made"
    return "train longer or on more rows, or move the gate. No image was made"
