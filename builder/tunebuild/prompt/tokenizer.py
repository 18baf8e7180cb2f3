"""Text to ids with one rule added to the tokenizer's own: what a user typed is never a control token.

``<|im_end|>`` in a question must reach the model as the characters ``<|im_end|>``, in training and in
serving alike. Encoding the rendered prompt piece by piece would do it, but shifts tokens wherever a
tokenizer treats the start of a text specially (SentencePiece's prefix space). So instead the whole text
is encoded once, by a twin of the tokenizer whose control tokens have other spellings: the template's own
control tokens are respelt for it, the user's are left as they are and are then ordinary text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tunebuild.errors import fail
from tunebuild.prompt.messages import Conversation, Message
from tunebuild.prompt.seams import Seams
from tunebuild.prompt.template import PromptRefused
from tunebuild.prompt.words import Words, find_words

# Private-use characters: no text means anything by them, and content that has them is refused.
_USER, _CONTROL, _CLOSE = "\uf8f0", "\uf8f1", "\uf8f2"
_MARKS = re.compile(f"[{_USER}{_CONTROL}{_CLOSE}]")
# As many texts as the processor's cache holds with all that the tokenizer notes about them.
_BATCH = 64
_QUOTED = re.compile(f"{_USER}(\\d+){_CLOSE}")


class PromptTokenizer:
    """A ``tokenizer.json`` with the rule above.

    Args:
        definition: the text of ``tokenizer.json``.
    """

    def __init__(self, definition: str) -> None:
        self.definition = definition
        try:
            self._plain = Tokenizer.from_str(definition)
        except Exception as error:  # noqa: BLE001 - the Rust side raises nothing more precise
            message = f"tokenizer.json cannot be read: {error}"
            raise fail("bad-tokenizer", message, path="model.base") from None
        # Length limits saved with a tokenizer would cut prompts without a word.
        self._plain.no_truncation()
        self._plain.no_padding()
        added = self._plain.get_added_tokens_decoder()
        self._added: dict[int, AddedToken] = dict(sorted(added.items()))
        self._literals = [token.content for token in self._added.values()]
        longest_first = sorted(self._literals, key=len, reverse=True)
        self._literal = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._first_characters = sorted({literal[0] for literal in self._literals if literal})
        self._places = {literal: place for place, literal in enumerate(self._literals)}

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of all added tokens: the ones that plain text can never produce."""
        return frozenset(self._added)

    @property
    def vocabulary_size(self) -> int:
        """Highest id + 1, control tokens included."""
        return max(self._plain.get_vocab(with_added_tokens=True).values()) + 1

    def token_id(self, token: str) -> int | None:
        """Id of a token by its spelling, or ``None``."""
        return self._plain.token_to_id(token)

    def token_text(self, token_id: int) -> str:
        """Spelling of a token, for messages."""
        return self._plain.id_to_token(token_id) or f"<{token_id}>"

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered prompt, in which :meth:`quote` may have marked user text."""
        if _USER not in text:
            return self._plain.encode(text, add_special_tokens=False).ids
        respelt = self._literal.sub(lambda m: self._control_spelling(m[0]), text)
        unquoted = _QUOTED.sub(lambda m: self._literals[int(m[1])], respelt)
        ids = self._twin.encode(unquoted, add_special_tokens=False).ids
        # A tokenizer whose model (not its added-token table) knows the spelling produces it all the same.
        for spelling in {self._literals[int(index)] for index in _QUOTED.findall(text)}:
            if self.token_id(spelling) in ids:
                message = f"this tokenizer cannot spell '{spelling}' as text"
                raise PromptRefused(fail("special-token-text", message).diagnostics)
        return [self._twin_ids.get(i, i) for i in ids]

    def encoder(self, texts: Iterable[str]) -> Callable[[str], list[int]]:
        """:meth:`encode` for these texts. Those without quoted user text are encoded now, on all cores."""
        plain = list({text: None for text in texts if _USER not in text})
        known = dict(zip(plain, self._encode_all(plain), strict=True))
        return lambda text: known[text] if text in known else self.encode(text)

    @cached_property
    def seams(self) -> Seams:
        """Finds prompts in the ids of texts that they begin."""
        return Seams(self._plain, self._added)

    def is_quoted(self, text: str) -> bool:
        """Whether :meth:`quote` marked something in a text."""
        return _USER in text

    def quote(self, messages: Conversation) -> list[Message]:
        """The same messages with every control token's spelling marked as user text."""
        return [self._quote(message) for message in messages]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens marked as special in the tokenizer are left out."""
        return self._plain.decode(list(ids), skip_special_tokens=True)

    def _quote(self, value: Any) -> Any:
        if isinstance(value, str):
            if not value.isascii() and _MARKS.search(value):
                code = ord(_MARKS.findall(value)[0])
                raise PromptRefused(
                    fail("private-use", f"text holds the private-use character U+{code:04X}").diagnostics
                )
            if not any(character in value for character in self._first_characters):
                return value  # the same, and many times faster
            return self._literal.sub(lambda m: f"{_USER}{self._places[m[0]]}{_CLOSE}", value)
        if isinstance(value, Mapping):
            # Keys and roles are the template's vocabulary, not text that a user typed.
            return {k: v if k == "role" else self._quote(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._quote(item) for item in value]
        return value

    def _control_spelling(self, literal: str) -> str:
        return f"{_CONTROL}{self._places[literal]}{_CLOSE}"

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        if self._words is not None and texts:
            found = self._words.encode(texts)
            if found[0] == self.encode(texts[0]):
                return found
            self._words = None  # should never be; whole texts are always right
        batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return [
            encoded.ids
            for batch in batches
            for encoded in self._plain.encode_batch_fast(batch, add_special_tokens=False)
        ]

    @cached_property
    def _words(self) -> Words | None:
        return find_words(self._plain, self.definition, self._added, self.seams)

    @cached_property
    def _twin(self) -> Tokenizer:
        definition = json.loads(self.definition)
        definition["added_tokens"] = []
        twin = Tokenizer.from_str(json.dumps(definition))
        twin.no_truncation()
        twin.no_padding()
        twin.add_tokens(
            [
                AddedToken(
                    self._control_spelling(token.content),
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=False,
                )
                for token in self._added.values()
            ]
        )
        return twin

    @cached_property
    def _twin_ids(self) -> dict[int, int]:
        spellings = {self._control_spelling(token.content): i for i, token in self._added.items()}
        vocabulary = self._twin.get_vocab(with_added_tokens=True)
        return {vocabulary[spelling]: token_id for spelling, token_id in spellings.items()}


class Detokenizer:
    """Turns a stream of ids into a stream of text, never cutting a character in two.

    A token is held back while its bytes end inside a UTF-8 character. Decoding looks at a window of
    recent tokens because many decoders treat the first token of a text specially.
    """

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._emitted = 0  # tokens of the window whose text has been handed out

    def push(self, token_id: int) -> str:
        """Take one id; the text that is now certain, possibly empty."""
        self._window.append(token_id)
        text = self._pending()
        if text.endswith("\ufffd"):
            return ""
        self._advance()
        return text

    def flush(self) -> str:
        """The rest, with U+FFFD for bytes that never became a character."""
        text = self._pending()
        self._advance()
        return text

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._window[: self._emitted])
        return self._tokenizer.decode(self._window)[len(before) :]

    def _advance(self) -> None:
        # Keep what was last emitted as the left context of the next token.
        self._window = self._window[self._emitted :]
        self._emitted = len(self._window)
