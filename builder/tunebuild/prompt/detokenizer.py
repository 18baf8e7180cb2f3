"""Text of an answer while its tokens arrive."""

from __future__ import annotations

from tunebuild.prompt.tokenizer import PromptTokenizer


class Detokenizer:
    """Turns a stream of ids into a stream of text, never cutting a character in two.

    A token is held back while its bytes end inside a UTF-8 character. Decoding looks at a window of
    recent tokens because many decoders treat the first token of a text specially.

    Args:
        tokenizer: the tokenizer.
        spelled: special tokens that are handed out by their spelling; all others are left out.
    """

    def __init__(self, tokenizer: PromptTokenizer, spelled: frozenset[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._window: list[int] = []
        self._emitted = 0  # tokens of the window whose text has been handed out

    def push(self, token_id: int) -> str:
        """Take one id; the text that is now certain, possibly empty."""
        if token_id in self._spelled:
            return self.flush() + self._tokenizer.token_text(token_id)
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
