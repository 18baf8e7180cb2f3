"""``data:`` - what the model is trained on and measured with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunebuild.spec.model import Revision
from tunebuild.spec.secret import Secret
from tunebuild.spec.section import Section

Format = Literal["auto", "qa", "alpaca", "messages", "sharegpt", "prompt_completion", "text"]
Scalar = str | int | float | bool | None


class Condition(Section):
    """What a column of a row must be; all that is given must hold. A column that a row lacks is `null`."""

    among: tuple[Scalar, ...] | None = Field(default=None, alias="in", examples=[["faq", "manual"]])
    """One of these values."""

    other_than: str | int | float | bool | tuple[Scalar, ...] | None = Field(
        default=None, alias="not", examples=["draft"]
    )
    """Not this value, or none of these."""

    min: float | None = Field(default=None, examples=[0.8])
    """A number of at least this. Text that spells a number, as in CSV, counts as one."""

    max: float | None = Field(default=None, examples=[100])
    """A number of at most this."""

    matches: str | None = Field(default=None, min_length=1, examples=["(?i)^how "])
    """Text in which this (Python) regular expression finds a match."""


class DataSource(Section):
    """Rows in a file beside the spec, or in a file or a split of a dataset repository on the hub."""

    path: str | None = Field(default=None, min_length=1, examples=["faq.jsonl"])
    """File with the rows: `.jsonl`, `.json`, `.csv`, `.tsv` (also compressed, with `.gz` or `.zst` appended)
    or `.parquet`. The path is relative to the spec, or to the top of `hub`. A local path may be a pattern
    such as `rows/*.jsonl`; the files are read in order of name."""

    format: Format = Field(default="auto", examples=["qa"])
    """Format of a row: `qa` (question, answer), `alpaca` (instruction, input, output), `messages` (a list of
    turns with role and content), `sharegpt` (conversations: a list of turns with from and value),
    `prompt_completion` (prompt, completion) or `text` (all of it is supervised, without a template). `auto`
    detects it from the columns of the first row, and prints it."""

    hub: str | None = Field(default=None, min_length=1, examples=["org/dataset"])
    """A dataset repository on the hub that holds the rows."""

    split: str | None = Field(default=None, min_length=1, examples=["train"])
    """The split of `hub`, instead of `path`. Its files are those that the datasets library finds for it, by
    their names or by the header of the repository's README.md."""

    config: str | None = Field(default=None, min_length=1, examples=["en"])
    """The configuration of `hub` that contains the split, if there are several."""

    revision: Revision | None = Field(default=None, examples=["main"])
    """Commit, branch or tag of `hub`, as in `model.revision`."""

    token: Secret | None = Field(default=None, examples=["${env:HF_TOKEN}"])
    """Where the access token for `hub` comes from, as in `model.token`."""

    columns: dict[str, str] = Field(default_factory=dict, examples=[{"answer": "reply"}])
    """Column names where they differ from the format's own: `{format's name: the file's name}`."""

    where: dict[str, Scalar | tuple[Scalar, ...] | Condition] = Field(
        default_factory=dict, examples=[{"language": "en"}, {"stars": [4, 5]}, {"score": {"min": 0.8}}]
    )
    """Use only rows whose columns have these values (one of these, for a list) or meet these conditions."""

    max_rows: int | None = Field(default=None, ge=1, examples=[100_000])
    """Read at most this many rows, the first ones of the files in order. The files of a split are downloaded
    one by one until they hold that many, so the data set may be larger than the disk."""

    weight: float = Field(default=1.0, gt=0.0, le=100.0, examples=[0.5])
    """How often a row of this source is trained on in an epoch: 2 is twice, 0.5 a seeded half of the rows.
    Not for `eval.files`, since a held-out row is evaluated once."""

    def files(self, directory: Path) -> list[str]:
        """Names of the files beside the spec that `path` means, in order; none where there is none."""
        if self.path is None:
            return []
        if (directory / self.path).is_file():
            return [self.path]
        if not set("*?[") & set(self.path) or Path(self.path).is_absolute():
            return []
        try:
            found = [file for file in directory.glob(self.path) if file.is_file()]
        except ValueError:  # ** beside other characters
            return []
        return sorted(str(file.relative_to(directory)) for file in found)


class EvalSplit(Section):
    """Rows held out from training."""

    fraction: float = Field(default=0.0, ge=0.0, lt=1.0, examples=[0.05])
    """Share of the training rows to hold out, chosen by the seed."""

    files: tuple[DataSource, ...] = Field(default=(), examples=[[{"path": "held_out.jsonl", "format": "qa"}]])
    """Files whose rows are all held out."""

    on_leak: Literal["error", "drop"] = Field(default="error", examples=["drop"])
    """What happens if training rows ask the same as a held-out row of `files`, ignoring case, punctuation and
    white space: stop the build, or leave those rows out of training and report them."""

    @property
    def holds_out(self) -> bool:
        """Whether any rows are held out."""
        return bool(self.fraction or self.files)


class NearDuplicates(Section):
    """Rows that are nearly the same."""

    near: float = Field(ge=0.5, le=1.0, examples=[0.85])
    """Share of word triples that two rows must have in common to count as the same; `deduplicate: near` means
    0.8. A lower value finds more duplicates, and more false ones."""


class PrivacySpec(Section):
    """What happens if rows contain what a model should not repeat to anybody who asks."""

    secrets: Literal["off", "report", "reject", "error"] = Field(default="error", examples=["reject"])
    """Tokens, keys and passwords, in the formats of their providers: stop the build (the default, since a
    published image cannot be recalled), reject the row, only report it, or do not scan."""

    personal: Literal["off", "report", "reject", "error"] = Field(default="report", examples=["reject"])
    """Email addresses, phone numbers with a country code, card numbers and IBANs. Only reported by default,
    since many data sets contain public ones on purpose. Names and postal addresses are not detected."""


class DataSpec(Section):
    """Training and evaluation data."""

    train: tuple[DataSource, ...] = Field(min_length=1, examples=[[{"path": "faq.jsonl", "format": "qa"}]])
    """Sources of training rows, in order."""

    eval: EvalSplit = Field(default_factory=EvalSplit, examples=[{"fraction": 0.05}])
    """What is held out."""

    deduplicate: Literal["off", "exact", "folded", "near"] | NearDuplicates = Field(
        default="exact", examples=["folded", {"near": 0.85}]
    )
    """Which repeated rows are used only once: none, equal rows, also rows that differ only in case,
    punctuation and white space, or also near duplicates. With the last, nearly equal questions count as leaks
    and are held out together."""

    on_long: Literal["error", "drop", "truncate_prompt"] = Field(default="error", examples=["drop"])
    """What happens to a row that is longer than `tuning.max_length`: stop the build, drop the row and report
    it, or cut the beginning of the user's text. An answer is never cut."""

    privacy: PrivacySpec = Field(default_factory=PrivacySpec, examples=[{"secrets": "reject"}])
    """Secrets and personal data in rows. Findings are listed, masked, with file, line and kind."""

    max_rejected: float = Field(default=0.0, ge=0.0, le=1.0, examples=[0.01])
    """Largest share of rows that may be rejected before the build stops. Rows that the spec asks to leave
    out, for instance by `on_long: drop`, do not count."""

    @property
    def near(self) -> float | None:
        """Smallest similarity of rows that count as the same, or ``None`` where only equal ones do."""
        if isinstance(self.deduplicate, NearDuplicates):
            return self.deduplicate.near
        return 0.8 if self.deduplicate == "near" else None
