"""``data:`` - what the model is trained on and measured with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunebuild.spec._base import Section
from tunebuild.spec.model import Revision
from tunebuild.spec.secret import Secret

Format = Literal["qa", "alpaca", "messages", "prompt_completion"]


class DataSource(Section):
    """Rows in a file, beside the spec or in a dataset repository on the hub."""

    path: str = Field(min_length=1, examples=["faq.jsonl"])
    """File with the rows, `.jsonl`, `.json` or `.csv`: relative to the spec, or to the top of `hub`."""

    format: Format = Field(examples=["qa"])
    """How a row says what was asked and answered: `qa` (question, answer), `alpaca` (instruction, input,
    output), `messages` (a list of turns) or `prompt_completion` (prompt, completion)."""

    hub: str | None = Field(default=None, min_length=1, examples=["org/dataset"])
    """A dataset repository on the hub that holds the file."""

    revision: Revision | None = Field(default=None, examples=["main"])
    """Commit, branch or tag of `hub`, as in `model.revision`."""

    token: Secret | None = Field(default=None, examples=["${env:HF_TOKEN}"])
    """Where the access token for `hub` comes from, as in `model.token`."""

    columns: dict[str, str] = Field(default_factory=dict, examples=[{"answer": "reply"}])
    """Column names where they differ from the format's own: `{format's name: the file's name}`."""


class EvalSplit(Section):
    """Rows held out from training."""

    fraction: float = Field(default=0.0, ge=0.0, lt=1.0, examples=[0.05])
    """Share of the training rows to hold out, chosen by the seed."""

    files: tuple[DataSource, ...] = Field(default=(), examples=[[{"path": "held_out.jsonl", "format": "qa"}]])
    """Files that are held out whole."""


class DataSpec(Section):
    """Training and evaluation data."""

    train: tuple[DataSource, ...] = Field(min_length=1, examples=[[{"path": "faq.jsonl", "format": "qa"}]])
    """Sources of training rows, in order."""

    eval: EvalSplit = Field(default_factory=EvalSplit, examples=[{"fraction": 0.05}])
    """What is held out."""

    on_long: Literal["error", "drop"] = Field(default="error", examples=["drop"])
    """What happens to a row that is longer than `tuning.max_length`: stop the build, or drop the row and
    say so. An answer is never cut."""

    max_rejected: float = Field(default=0.0, ge=0.0, le=1.0, examples=[0.01])
    """Largest share of rows that may be rejected before the build stops."""
