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
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tunebuild.errors import fail
from tunebuild.models.base_model import BaseModel
from tunebuild.models.safetensors_header import read_header
from tunebuild.store import Inputs, Progress, Tree

_IN_A_LAYER = re.compile(r"\.\d+\.")
_PATH = "prompt.new_tokens"
_INDEX = "model.safetensors.index.json"
_COPIED = 8 << 20


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
        source = self.base.directory
        ids, before = _tokenizer(source, out, self.tokens)
        rows = max(self.base.vocabulary_size, max(ids) + 1)
        names = _tensors_of_vocabulary(self.base)
        for file in self.base.files:
            if file.path.endswith(".safetensors"):
                _weights(source / file.path, out / file.path, names, rows, ids, before)
            elif not (out / file.path).exists():
                shutil.copyfile(source / file.path, out / file.path)
        _config(out, rows)
        grown = rows - self.base.vocabulary_size
        taken = "in rows that the vocabulary had to spare" if not grown else f"{grown} rows added"
        progress.say(f"{len(ids)} new control tokens, {taken}")


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


def _weights(
    source: Path, target: Path, names: frozenset[str], rows: int, ids: Sequence[int], before: int
) -> None:
    """Write a file of weights, in which some tensors have so many rows, and new ones for some ids."""
    header = read_header(source)
    if not names & header.keys():
        shutil.copyfile(source, target)
        return
    from tunebuild.models.rows import Rows, mean_row  # numpy, for which other builds should not wait

    with source.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        ordered = sorted(header, key=lambda name: header[name]["data_offsets"])
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in ordered:
            entry, (first, last) = header[name], header[name]["data_offsets"]
            shape, size = list(entry["shape"]), last - first
            if name in names:
                size = size // shape[0] * rows
                shape[0] = rows
            entries[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with target.open("wb") as sink:
            sink.write(len(text).to_bytes(8, "little") + text)
            for name in ordered:
                first, last = header[name]["data_offsets"]
                stream.seek(start + first)
                begun = sink.tell()
                left = last - first
                while left:
                    left -= sink.write(stream.read(min(_COPIED, left)))
                if name in names:
                    dtype, shape = header[name]["dtype"], header[name]["shape"]
                    table = Rows(source, start + first, dtype, shape[0], (last - first) // shape[0])
                    row = mean_row(table, before)
                    sink.write(row * (rows - shape[0]))
                    for number in ids:
                        sink.seek(begun + number * len(row))
                        sink.write(row)
                    sink.seek(begun + rows * len(row))


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
