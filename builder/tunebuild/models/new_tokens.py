"""A base with new control tokens: ids in its tokenizer, and rows in its embedding and head.

Vocabularies are often padded, so the first new tokens may take rows that are there already. Rows that are not
are added. Each new row begins as the mean of the rows of all other tokens, which are not changed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tunebuild.errors import fail
from tunebuild.models._new_rows import NewRows, write_outline, write_with_rows
from tunebuild.models.base_model import BaseModel
from tunebuild.models.safetensors_header import read_header
from tunebuild.store import Digest, Inputs, Progress, Tree, TreeFile, digest_file, digest_json, scan

_IN_A_LAYER = re.compile(r"\.\d+\.")
_PATH = "prompt.new_tokens"
_INDEX = "model.safetensors.index.json"
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class NewTokensStage:
    """Writes a base with new control tokens. Deterministic.

    Attributes:
        base: as published.
        tokens: spellings, none of which the tokenizer has.
    """

    base: BaseModel
    tokens: tuple[str, ...]
    name: str = "tokens"
    version: int = 1

    def own(self) -> Inputs:
        """The base's files and the tokens."""
        return {"base": {f.path: f.digest for f in self.base.files}, "tokens": list(self.tokens)}

    def upstream(self) -> Inputs:
        """Nothing: it comes before all other stages."""
        return {}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Write it.

        Raises:
            TunebuildError: ``new-tokens``: a token is there already, or the base's tensors of the vocabulary
                are not known.
        """
        new = self._write_all_but_weights(out)
        files = self._weights
        total, done = sum(file.size for file in files), 0
        for file in files:
            source, target = self.base.directory / file.path, out / file.path
            if new.tensors.isdisjoint(read_header(source)):
                shutil.copyfile(source, target)
            else:
                write_with_rows(source, target, new)
            progress.step(done := done + file.size, total, file.path)
        _config(out, new.count)
        grown = new.count - self.base.vocabulary_size
        taken = "in rows that the vocabulary had to spare" if not grown else f"{grown} rows added"
        progress.say(f"{len(new.ids)} new control tokens, {taken}")

    def outline(self, out: Path) -> BaseModel:
        """The base that :meth:`run` would write, for a plan: weights have their header and their size alone.

        Args:
            out: gets the files; the weights take no room where the file system knows holes.

        Returns:
            The base. The digests of its weights are of what they would be made from, so no stage that reads
            weights is found done for them.

        Raises:
            TunebuildError: as :meth:`run` does.
        """
        new = self._write_all_but_weights(out)
        for file in self._weights:
            write_outline(self.base.directory / file.path, out / file.path, new)
        _config(out, new.count)
        return BaseModel(out, scan(out, partial(self._digest, out)).files)

    def _digest(self, out: Path, file: Path) -> Digest:
        if file.suffix != _WEIGHTS:
            return digest_file(file)
        return digest_json([self.own(), file.relative_to(out).as_posix()])

    @property
    def _weights(self) -> list[TreeFile]:
        return [file for file in self.base.files if file.path.endswith(_WEIGHTS)]

    def _write_all_but_weights(self, out: Path) -> NewRows:
        source = self.base.directory
        ids, before = _tokenizer(source, out, self.tokens)
        for file in self.base.files:
            if not file.path.endswith(_WEIGHTS) and not (out / file.path).exists():
                shutil.copyfile(source / file.path, out / file.path)
        rows = max(self.base.vocabulary_size, max(ids) + 1)
        return NewRows(_tensors_of_vocabulary(self.base), rows, tuple(ids), before)


def with_new_tokens(tree: Tree) -> BaseModel:
    """What the stage wrote, as a base model."""
    return BaseModel(tree.root, tree.files)


def _tokenizer(source: Path, out: Path, tokens: Sequence[str]) -> tuple[list[int], int]:
    """Write the tokenizer with the tokens; their ids, and the number of ids that were there before."""
    file = source / "tokenizer.json"
    if not file.is_file():
        raise fail("no-tokenizer", "the base model has no tokenizer.json", path="model.base")
    tokenizer = Tokenizer.from_file(str(file))
    before = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    for place, token in enumerate(tokens):
        if tokenizer.token_to_id(token) is not None:
            message = f"'{token}' is a token of the base already"
            raise fail("new-tokens", message, "take it out", path=f"{_PATH}[{place}]")
    added = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_special_tokens(added)
    ids = [number for token in tokens if (number := tokenizer.token_to_id(token)) is not None]
    (out / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", "utf-8")
    config = _read(source / "tokenizer_config.json")
    if isinstance(config.get("added_tokens_decoder"), dict):
        entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        config["added_tokens_decoder"] |= {
            str(number): {"content": token, **entry} for number, token in zip(ids, tokens, strict=True)
        }
        _write(out / "tokenizer_config.json", config)
    if legacy := _read(source / "added_tokens.json"):
        _write(out / "added_tokens.json", {**legacy, **dict(zip(tokens, ids, strict=True))})
    return ids, before


def _tensors_of_vocabulary(base: BaseModel) -> frozenset[str]:
    """Names of the tensors of no layer that have a row for each token: embedding, head, and its bias."""
    shapes = {
        name: entry["shape"]
        for file in base.files
        if file.path.endswith(".safetensors")
        for name, entry in read_header(base.directory / file.path).items()
    }
    found = frozenset(
        name
        for name, shape in shapes.items()
        if shape[:1] == [base.vocabulary_size] and not _IN_A_LAYER.search(name) and len(shape) <= 2
    )
    matrices = [name for name in found if len(shapes[name]) == 2]
    if not 1 <= len(matrices) <= 2:
        text = ", ".join(sorted(matrices)) or "no tensor"
        raise fail(
            "new-tokens",
            f"it is not known which tensors are embedding and head: {text} has a row for each token",
            "spell the tokens with ordinary text, or choose another base",
            path=_PATH,
        )
    return found


def _config(out: Path, rows: int) -> None:
    config = _read(out / "config.json")
    for section in (config, config.get("text_config")):
        if isinstance(section, dict) and isinstance(section.get("vocab_size"), int):
            section["vocab_size"] = rows
    _write(out / "config.json", config)
    if index := _read(out / _INDEX):
        sizes = (
            last - first
            for name in set(index["weight_map"].values())
            for first, last in (entry["data_offsets"] for entry in read_header(out / name).values())
        )
        index["metadata"] = {**index.get("metadata", {}), "total_size": sum(sizes)}
        _write(out / _INDEX, index)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
