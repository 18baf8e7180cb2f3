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
    samples; training questions if nothing is held out. 0 writes no answers, and leaves the regression set
    out, too."""

    max_tokens: int = Field(default=64, ge=1, le=4096, examples=[64])
    """Longest answer in tokens."""

    regression: tuple[Prompt, ...] = Field(default=(), max_length=256, examples=[["Who wrote Hamlet?"]])
    """Prompts outside the training data, besides the handful that ship. The base answers them, and the tuned
    model is measured by how far it has moved from those answers."""

    tasks: tuple[Task, ...] = Field(default=(), max_length=64, examples=[["./tasks/faq.yaml", "arc_easy"]])
    """Tasks of lm-eval that base and tuned model do, in lm-eval's own form of prompt. What starts with `./`
    is a task's YAML file beside the spec, or a directory of such files; its `dataset_kwargs.data_files` are
    relative to it, and `!function` and `include` are refused. Anything else is the name of a task or a group
    that lm-eval ships, whose documents it fetches from the hub as they are then."""

    task_limit: int | None = Field(default=None, ge=1, examples=[200])
    """Only so many of the first documents of each task. All if left out."""
