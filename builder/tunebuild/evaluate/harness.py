"""Does tasks with lm-eval. Imports it, so only where there are tasks."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunebuild.errors import fail

if TYPE_CHECKING:
    from tunebuild.evaluate.tasks import Task

Results = dict[str, dict[str, float]]
"""By task and metric."""


def do_tasks(
    model: Any, tokenizer: Path, tasks: Sequence[Task], limit: int | None, window: int | None = None
) -> Results:
    """What a model reaches in some tasks.

    Args:
        model: a causal language model, or one of PEFT.
        tokenizer: directory of its tokenizer.
        tasks: what to do.
        limit: documents of each task; all if left out.
        window: most tokens of a document, the last ones; as many as the model has positions for if left out.

    Returns:
        Means over documents. A metric that comes out of a filter has that filter's name behind a comma.

    Raises:
        TunebuildError: lm-eval cannot do a task, or comes to no figure in it.
    """
    if not tasks:
        return {}
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    wrapped = HFLM(
        pretrained=model,
        tokenizer=AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False),
        batch_size=1,  # padding would be one more thing that could differ
        max_length=window,
    )
    with _library(tasks) as (manager, wanted):
        found = lm_eval.simple_evaluate(
            wrapped,
            tasks=wanted,
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
        )
    figures = {task.name: _figures(found["results"][task.name]) for task in tasks}
    for name, values in figures.items():
        if not values:
            message = f"lm-eval came to no figure in '{name}'"
            raise fail("task-failed", message, "take it out", path="evaluation.tasks")
    return figures


def check_tasks(tasks: Sequence[Task]) -> None:
    """Load what stands beside the spec, and look up the names of the rest. Fetches nothing.

    Raises:
        TunebuildError: lm-eval cannot load a task, has none of that name, or measures nothing in it: a group
            that does not say how its tasks' figures become one.
    """
    with _library(tasks) as (manager, wanted):
        manager.load([task for task in wanted if not isinstance(task, str)])
        known = {*manager.all_subtasks, *manager.all_groups}
        groups = {name: manager.task_index[name].cfg or {} for name in manager.all_groups}
    for name in wanted:
        if isinstance(name, str) and name not in known:
            hint = "'lm-eval ls tasks' lists them"
            raise fail("unknown-task", f"lm-eval has no task '{name}'", hint, path="evaluation.tasks")
        if name in groups and not groups[name].get("aggregate_metric_list"):
            parts = [part for part in groups[name].get("task", ()) if isinstance(part, str)]
            message = f"'{name}' is a group without a figure of its own"
            hint = f"name its tasks instead: {', '.join(parts)}" if parts else "name tasks of it instead"
            raise fail("group-without-figure", message, hint, path="evaluation.tasks")


@contextmanager
def _library(tasks: Sequence[Task]) -> Iterator[tuple[Any, list[Any]]]:
    """lm-eval's task manager and the tasks as it takes them; what it raises says which field is at fault."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # Its bars cannot be turned off, and would tear our own progress apart.
    with tempfile.TemporaryDirectory() as cache, redirect_stderr(io.StringIO()):
        try:
            # Reading all that it ships takes seconds.
            manager = TaskManager(include_defaults=any(task.config is None for task in tasks))
            yield manager, [task.for_library(Path(cache)) for task in tasks]
        except Exception as error:  # whatever a task's template, its documents or the hub come up with
            said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            message = f"lm-eval could not do them: {said}"
            raise fail(
                "task-failed", message, "fix the task, or remove it", path="evaluation.tasks"
            ) from error


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """lm-eval's ``metric,filter`` keys; standard errors are not among them, as they were not computed."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in result.items()
        if "," in key and isinstance(value, int | float)
    }
