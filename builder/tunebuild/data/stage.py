"""The ``data`` stage: rows in; tokenized examples, the prompt and the checks out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

from tunebuild.data.privacy import Class, versions
from tunebuild.data.rows import RowSource
from tunebuild.errors import fail
from tunebuild.prompt import Renderer
from tunebuild.spec.data import Condition, DataSpec
from tunebuild.store import Digest, Inputs, Progress


@dataclass(frozen=True, slots=True)
class DataStage:
    """Prepares the training data.

    Output::

        train.arrow, eval.arrow   tokenized examples; eval only where rows are held out
        eval_sources.json         the number of the source that each row of eval.arrow stands in
        rejects.jsonl             every row that is not used, and why
        findings.jsonl            secrets and personal data in rows, masked
        stats.json                counts, also of each source, lengths, supervised share, what no prompt
                                  shows of rows
        prompt/                   the prompt contract, as the image carries it, with checks.jsonl:
                                  trained questions and their answers
    """

    data: DataSpec
    train: tuple[RowSource, ...]
    held_out: tuple[RowSource, ...]
    file_digests: tuple[Digest, ...]
    renderer: Renderer
    tokenizer_dir: Path
    max_length: int
    seed: int
    vocabulary_size: int
    new_tokens: tuple[str, ...] = ()
    name: str = "data"
    version: int = 14

    @property
    def sources(self) -> tuple[RowSource, ...]:
        """All files, in the order of their numbers."""
        return (*self.train, *self.held_out)

    def own(self) -> Inputs:
        """Contents of the files, never their paths."""
        return {
            "sources": [
                {
                    "digest": digest,
                    "format": source.format,
                    "columns": dict(source.columns),
                    "where": {
                        column: wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
                        if isinstance(wanted, Condition)
                        else wanted
                        for column, wanted in source.where.items()
                    },
                    "weight": None if held else source.weight,
                    "most": source.most,
                    "held_out": held,
                }
                for digest, (source, held) in zip(
                    self.file_digests,
                    [*((s, False) for s in self.train), *((s, True) for s in self.held_out)],
                    strict=True,
                )
            ],
            "eval_fraction": self.data.eval.fraction,
            "on_leak": self.data.eval.on_leak,
            "deduplicate": self.data.near or self.data.deduplicate,
            "on_long": self.data.on_long,
            "privacy": {
                **self.data.privacy.model_dump(mode="json"),
                "scanners": versions(self._rejected_classes),
            },
            "max_rejected": self.data.max_rejected,
            "max_length": self.max_length,
            "seed": self.seed,
            "prompt": self.renderer.digest,
            "tokenizers": package_version("tokenizers"),
            "jinja2": package_version("jinja2"),
            **({"new_tokens": list(self.new_tokens)} if self.new_tokens else {}),
        }

    def upstream(self) -> Inputs:
        """Nothing: it is the first stage."""
        return {}

    @property
    def _rejected_classes(self) -> tuple[Class, ...]:
        """Classes whose findings decide which rows are used, so that the finder's version counts."""
        policies: tuple[tuple[Class, str], ...] = (
            ("secret", self.data.privacy.secrets),
            ("personal", self.data.privacy.personal),
        )
        return tuple(found for found, policy in policies if policy == "reject")

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Write the output; nothing of it where the data breaks the contract."""
        # Arrow takes a quarter of a second to import, and a build with nothing to do should not wait for it.
        from tunebuild.data.run import run_data

        if (highest := self.renderer.tokenizer.vocabulary_size) > self.vocabulary_size:
            raise fail(
                "vocabulary",
                f"the tokenizer knows {highest} tokens, the model has embeddings for {self.vocabulary_size}",
                "tokenizer and model do not belong together",
                path="model.base",
            )

        run_data(self, work, out, progress)
