"""A tokenizer whose control tokens are spelled otherwise, so that their own spellings are text to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer


def make_twin(definition: str, respelt: Mapping[str, str]) -> Tokenizer:
    """The twin of a tokenizer.

    All other added tokens stay as they are. The model's vocabulary is respelt, too: some models hold the
    spelling of a control token and would make it of plain text.

    Args:
        definition: the text of ``tokenizer.json``.
        respelt: the spelling of each control token -> its spelling in the twin.
    """
    parsed = json.loads(definition)
    _respell_model(parsed["model"], respelt)
    parsed["added_tokens"] = [
        # Where text is normalized before such a token is looked for, the new spelling might not survive it.
        {**token, "content": respelt[token["content"]], "normalized": False}
        if token["content"] in respelt
        else token
        for token in parsed["added_tokens"]
    ]
    parsed["post_processor"] = None  # it may name control tokens, and is not used
    twin = Tokenizer.from_str(json.dumps(parsed))
    twin.no_truncation()
    twin.no_padding()
    return twin


def spells(tokenizer: Tokenizer, token: AddedToken, token_id: int) -> bool:
    """Whether the model makes a token of its spelling, even if it were not in the table of added tokens."""
    text = token.content
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    pieces = [text]
    if tokenizer.pre_tokenizer is not None:
        pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    return any(found.id == token_id for piece in pieces for found in tokenizer.model.tokenize(piece))


def _respell_model(model: dict[str, Any], respelt: Mapping[str, str]) -> None:
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):
        model["vocab"] = [[respelt.get(piece, piece), score] for piece, score in vocabulary]
    elif isinstance(vocabulary, dict):
        model["vocab"] = {respelt.get(piece, piece): number for piece, number in vocabulary.items()}
    if model.get("unk_token") in respelt:
        model["unk_token"] = respelt[model["unk_token"]]
    if model.get("merges"):
        model["merges"] = [m for m in model["merges"] if not _merges_control(m, respelt)]


def _merges_control(merge: str | list[str], respelt: Mapping[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left + right in respelt or left in respelt or right in respelt
