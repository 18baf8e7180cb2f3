"""Text to ids with one rule added to the tokenizer's own: what a user typed is never a control token.

``<|im_end|>`` in a question must reach the model as the characters ``<|im_end|>``, in training and in
serving alike. Encoding the rendered prompt piece by piece would do it, but shifts tokens wherever a
tokenizer treats the start of a text specially (SentencePiece's prefix space). So instead the whole text
is encoded once, by a twin of the tokenizer whose control tokens have other spellings: the template's own
control tokens are respelt for it, the user's are left as they are and are then ordinary text.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from tunebuild.errors import fail
from tunebuild.prompt._twin import make_twin
from tunebuild.prompt.controls import Controls, find_controls, opens_thinking, special_controls
from tunebuild.prompt.messages import Conversation, Message
from tunebuild.prompt.seams import Seams
from tunebuild.prompt.template import PromptRefused, PromptTemplate

if TYPE_CHECKING:
    from tunebuild.prompt.words import Words

# Private-use characters: no text means anything by them, and content that has them is refused.
_USER, _CONTROL, _CLOSE = "\uf8f0", "\uf8f1", "\uf8f2"
_MARKS = re.compile(f"[{_USER}{_CONTROL}{_CLOSE}]")
# As many texts as the processor's cache holds with all that the tokenizer notes about them.
_BATCH = 64
_QUOTED = re.compile(f"{_USER}(\\d+){_CLOSE}")
# In these turns the model itself speaks.
_ANSWERING = "assistant"


class PromptTokenizer:
    """A ``tokenizer.json`` with the rule above.

    Args:
        definition: the text of ``tokenizer.json``.

    Control tokens are the ones marked special until :meth:`under` adds the ones that a template writes.
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
        self._set(special_controls(self._added))

    def under(self, template: PromptTemplate) -> PromptTokenizer:
        """The same tokenizer, whose control tokens include the ones that the template writes."""
        controls = find_controls(template, self._plain, self._added)
        if controls == self.controls:
            return self
        other = copy.copy(self)
        for cached in ("seams", "_words", "_twin", "_twin_ids", "_respelt"):
            other.__dict__.pop(cached, None)
        other._set(controls)
        return other

    def _set(self, controls: Controls) -> None:
        self.controls = controls
        self._control = {i: t for i, t in self._added.items() if t.content in controls.everything}
        self._literals = [token.content for token in self._control.values()]
        self._places = {literal: place for place, literal in enumerate(self._literals)}
        self._literal = _any_of(self._literals)
        # In an answer, think tags and calls are what the model itself says.
        self._in_answers = self._literal if not controls.answers else _any_of(controls.turns)
        self._first_characters = sorted({literal[0] for literal in self._literals})
        self._unknown = _unknown(self._plain)

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of the control tokens: what a user types can never become one of them."""
        return frozenset(self._control)

    @cached_property
    def vocabulary_size(self) -> int:
        """Highest id + 1, added tokens included. Kept: the whole vocabulary is copied to find it."""
        return max(self._plain.get_vocab(with_added_tokens=True).values()) + 1

    def token_id(self, token: str) -> int | None:
        """Id of a token by its spelling, or ``None``."""
        return self._plain.token_to_id(token)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is left out of decoded text."""
        return token_id in self._added and self._added[token_id].special

    def added_tokens(self, text: str) -> list[str | int]:
        """A text cut at added tokens: plain text, and the ids of the tokens between."""
        pattern = _any_of(t.content for t in self._added.values() if t.content)
        by_text = {token.content: i for i, token in self._added.items()}
        found: list[str | int] = []
        at = 0
        for hit in pattern.finditer(text):
            found += [text[at : hit.start()], by_text[hit[0]]]
            at = hit.end()
        return [part for part in (*found, text[at:]) if part != ""]

    def token_text(self, token_id: int) -> str:
        """Spelling of a token, for messages."""
        return self._plain.id_to_token(token_id) or f"<{token_id}>"

    @property
    def think_tokens(self) -> list[str]:
        """Added tokens that open a think block."""
        return [token.content for token in self._added.values() if opens_thinking(token.content)]

    def special_ids(self, text: str) -> frozenset[int]:
        """Tokens marked special whose spelling a text holds: what :meth:`decode` leaves out of it."""
        return frozenset(i for i, t in self._added.items() if t.special and t.content and t.content in text)

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered prompt, in which :meth:`quote` may have marked user text."""
        if _USER not in text and not self._lenient:
            return self._plain.encode(text, add_special_tokens=False).ids
        return self._encode_by_twin(text)

    def _encode_by_twin(self, text: str) -> list[int]:
        respelt, count = self._around.subn(self._respell, text)
        unquoted = _QUOTED.sub(lambda m: self._literals[int(m[1])], respelt)
        ids = [self._twin_ids.get(i, i) for i in self._twin.encode(unquoted, add_special_tokens=False).ids]
        # A kind of model that holds a control token's spelling in another way would produce it all the same.
        if count or not self.control_ids.isdisjoint(ids):
            made = sum(i in self._control and self._control[i].content != self._unknown for i in ids)
            meant = sum(self._literals[int(p)] != self._unknown for p in _RESPELT.findall(respelt))
            if made > meant:
                found = {self.token_text(i) for i in ids if i in self._control}
                spelling = next((s for s in self._spelt(text) if s in found), "a control token")
                message = f"this tokenizer cannot spell '{spelling}' as text"
                raise PromptRefused(fail("special-token-text", message).diagnostics)
        return ids

    def encoder(self, texts: Iterable[str]) -> Callable[[str], list[int]]:
        """:meth:`encode` for these texts. Those without quoted user text are encoded now, on all cores."""
        if self._lenient:
            return self.encode
        plain = list({text: None for text in texts if _USER not in text})
        known = dict(zip(plain, self._encode_all(plain), strict=True))
        return lambda text: known[text] if text in known else self.encode(text)

    @cached_property
    def seams(self) -> Seams:
        """Finds prompts in the ids of texts that they begin."""
        return Seams(self._plain, self._added, self.controls.everything)

    def is_quoted(self, text: str) -> bool:
        """Whether :meth:`quote` marked something in a text."""
        return _USER in text or self._lenient

    def quote(self, messages: Conversation) -> list[Message]:
        """The same messages with every control token's spelling marked as user text."""
        return [self._quote(m, answering=m.get("role") == _ANSWERING) for m in messages]

    def unquote(self, text: str) -> str:
        """A rendered text without the marks of :meth:`quote`."""
        return _QUOTED.sub(lambda m: self._literals[int(m[1])], text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens marked as special in the tokenizer are left out."""
        return self._plain.decode(list(ids), skip_special_tokens=True)

    def spell(self, ids: Sequence[int]) -> str:
        """Text of ids with every token in it, for people to look at."""
        return self._plain.decode(list(ids), skip_special_tokens=False)

    def _quote(self, value: Any, *, answering: bool) -> Any:
        if isinstance(value, str):
            if not value.isascii() and _MARKS.search(value):
                code = ord(_MARKS.findall(value)[0])
                raise PromptRefused(
                    fail("private-use", f"text holds the private-use character U+{code:04X}").diagnostics
                )
            if not any(character in value for character in self._first_characters):
                return value  # the same, and many times faster
            literal = self._in_answers if answering else self._literal
            return literal.sub(lambda m: f"{_USER}{self._places[m[0]]}{_CLOSE}", value)
        if isinstance(value, Mapping):
            # Roles are the template's vocabulary. Keys may be a user's: those of a call's arguments, say.
            return {
                self._quote(k, answering=answering): v if k == "role" else self._quote(v, answering=answering)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._quote(item, answering=answering) for item in value]
        return value

    @cached_property
    def _lenient(self) -> bool:
        """Whether other text than its spelling may become a control token, by the way text is normalized."""
        changes = self._plain.normalizer is not None
        return changes and any(
            token.normalized and _may_come_of_other_text(self._plain, token.content)
            for token in self._control.values()
        )

    @cached_property
    def _around(self) -> re.Pattern[str]:
        """Control tokens, and the other added tokens that may take a part of one, which then is none."""
        firsts = {literal[0] for literal in self._literals}
        overlapping = [
            token.content
            for token in self._added.values()
            if token.content not in self._places
            and (
                any(first in token.content[1:] for first in firsts)
                or any(token.content.startswith(literal) for literal in self._literals)
            )
        ]
        return _any_of([*self._literals, *overlapping])

    def _respell(self, match: re.Match[str]) -> str:
        place = self._places.get(match[0])
        return match[0] if place is None else f"{_CONTROL}{place}{_CLOSE}"

    def _spelt(self, text: str) -> list[str]:
        return [self._literals[int(place)] for place in _QUOTED.findall(text)]

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
        from tunebuild.prompt.words import find_words  # where many rows are read, and numpy is

        return find_words(self._plain, self.definition, self._added, self.seams)

    @cached_property
    def _respelt(self) -> dict[str, str]:
        return {literal: f"{_CONTROL}{place}{_CLOSE}" for literal, place in self._places.items()}

    @cached_property
    def _twin(self) -> Tokenizer:
        return make_twin(self.definition, self._respelt)

    @cached_property
    def _twin_ids(self) -> dict[int, int]:
        """Ids of the twin's added tokens that are others than the tokenizer's."""
        of_twin = {token.content: i for i, token in self._twin.get_added_tokens_decoder().items()}
        pairs = {
            of_twin[self._respelt.get(token.content, token.content)]: i for i, token in self._added.items()
        }
        return {theirs: ours for theirs, ours in pairs.items() if theirs != ours}


_RESPELT = re.compile(f"{_CONTROL}(\\d+){_CLOSE}")


def _unknown(tokenizer: Tokenizer) -> str | None:
    """The token of characters that a vocabulary does not have, where it has no bytes for them."""
    model = tokenizer.model
    if (number := getattr(model, "unk_id", None)) is not None:
        return tokenizer.id_to_token(number)
    return getattr(model, "unk_token", None)


def _any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Finds each of them, the longest first."""
    longest_first = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _may_come_of_other_text(tokenizer: Tokenizer, spelling: str) -> bool:
    """Whether a normalizer makes a spelling of other text, as far as a few texts show."""
    normalize = tokenizer.normalizer.normalize_str
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in spelling)
    others = (spelling.upper(), spelling.lower(), wide, f"{spelling[:1]}\u00ad{spelling[1:]}")
    normal = normalize(spelling).strip()
    return any(other != spelling and normalize(other).strip() == normal for other in others)
