"""Which added tokens are control tokens, and which are ordinary text.

Tokenizers keep everything that is looked for before the model splits a text in one table: the tokens that a
template is made of, but with some also line breaks, runs of blanks, HTML tags and think tags. The ones marked
special are control tokens, and so are those that the template itself writes. All others are text: whoever
types them gets what the tokenizer makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tunebuild.errors import TunebuildError
from tunebuild.prompt._twin import spells
from tunebuild.prompt.messages import Message
from tunebuild.prompt.template import PromptTemplate

_THINK = re.compile(r"[<\[]\|?/?(?:think|thinking|thought|reason|reasoning)\|?[>\]]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Controls:
    """Control tokens by spelling.

    Attributes:
        turns: nobody can type these: they are special, or part turns in the template.
        answers: the control tokens that an answer may hold, such as think tags and tool calls: in an
            assistant's turn they are the tokens that the model itself makes, in all others they are text.
    """

    turns: frozenset[str]
    answers: frozenset[str] = frozenset()

    @property
    def everything(self) -> frozenset[str]:
        """All control tokens."""
        return self.turns | self.answers


def opens_thinking(spelling: str) -> bool:
    """Whether a token's spelling is a tag that opens a think block."""
    return _THINK.fullmatch(spelling) is not None and "/" not in spelling


def special_controls(added: Mapping[int, AddedToken]) -> Controls:
    """Control tokens where there is no template: the ones marked special."""
    special = {token.content for token in added.values() if token.special and token.content}
    answers = {spelling for spelling in special if _THINK.fullmatch(spelling)}
    return Controls(frozenset(special - answers), frozenset(answers))


def find_controls(
    template: PromptTemplate, tokenizer: Tokenizer, added: Mapping[int, AddedToken]
) -> Controls:
    """Control tokens of a tokenizer under a template."""
    special = special_controls(added)
    others = {i: token for i, token in added.items() if not token.special and token.content.strip()}
    if not others:
        return special
    frames = "".join(_frames(template))
    # What the model makes of its spelling anyway is text by nature, as are blanks.
    written = {
        token.content
        for token_id, token in others.items()
        if (token.content in frames or token.content in template.source)
        and not _THINK.fullmatch(token.content)
        and not spells(tokenizer, token, token_id)
    }
    turns = {spelling for spelling in written if spelling in frames}
    return Controls(special.turns | turns, special.answers | (written - turns))


def is_written(template: PromptTemplate, spelling: str) -> bool:
    """Whether a control token has a use: the template writes it, or an answer may hold it (think tags)."""
    if spelling in template.source or _THINK.fullmatch(spelling):
        return True
    return any(spelling in frame for frame in _frames(template))


def _frames(template: PromptTemplate) -> Iterator[str]:
    """What a template writes around what is said: prompts, and what stands behind answers and calls."""
    user, answer, system = _turn("user", "a"), _turn("assistant", "ANSWER"), _turn("system", "c")
    for turns in ([user], [system, user], [user, answer, user]):
        yield _rendered(template, turns, prompt=True)
    yield _rendered(template, [user, answer], prompt=False).rpartition("ANSWER")[2]
    for arguments in ('{"d": 1}', {"d": 1}):
        call = {"id": "call00000", "type": "function", "function": {"name": "e", "arguments": arguments}}
        result = {"role": "tool", "name": "e", "tool_call_id": "call00000", "content": "f"}
        for content in ("", None):
            called = [user, {"role": "assistant", "content": content, "tool_calls": [call]}]
            head = _rendered(template, called, prompt=False)
            whole = _rendered(template, [*called, result], prompt=True)
            if head and whole.startswith(head):
                yield whole[len(head) :]


def _rendered(template: PromptTemplate, turns: Sequence[Message], *, prompt: bool) -> str:
    try:
        return template.render(turns, add_generation_prompt=prompt)
    except TunebuildError:
        return ""


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
