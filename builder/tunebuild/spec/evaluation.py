"""``evaluation:`` - what is asked of the base and of the tuned model besides the held-out tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from tunebuild.spec.section import Section

Prompt = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Task = Annotated[str, StringConstraints(min_length=1)]


class EvaluationSpec(Section):
    """Answers that base and tuned model write out. Costs about `max_tokens` steps of each."""

    samples: int = Field(default=16, ge=0, le=1024, examples=[16])
    """Held-out questions that both models answer, for `exact_match`, `token_f1`, `rouge_l` and the report's
    samples; training questions if nothing is held out. 0 writes no answers, and also skips the regression
    set."""

    max_tokens: int = Field(default=64, ge=1, le=4096, examples=[64])
    """Longest answer in tokens."""

    regression: tuple[Prompt, ...] = Field(default=(), max_length=256, examples=[["Who wrote Hamlet?"]])
    """Prompts outside the training data, in addition to a few that ship with tunebuild. The base answers
    them, and the figures say how far the tuned model has moved from those answers."""

    tasks: tuple[Task, ...] = Field(default=(), max_length=64, examples=[["./tasks/faq.yaml", "arc_easy"]])
    """lm-eval tasks that base and tuned model run, with lm-eval's own prompts. An entry that starts with `./`
    is a task's YAML file beside the spec, or a directory of such files; its `dataset_kwargs.data_files` are
    relative to it, and `!function` and `include` are refused. Any other entry is the name of a task or a
    group that lm-eval ships. lm-eval downloads its documents from the hub, in their current version."""

    task_limit: int | None = Field(default=None, ge=1, examples=[200])
    """Use only this many documents of each task, the first ones. All if left out."""
