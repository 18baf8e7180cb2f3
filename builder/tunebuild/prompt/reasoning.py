"""How a template writes an answer's reasoning, found by rendering sentinel texts.

Published templates differ in the key that they read it from, in the markers around it, in whether the prompt
already opens a block, and in what becomes of it once more turns follow. Nothing of this is known by a model's
name: the template, and where it is silent the tokenizer, say it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunebuild.errors import TunebuildError
from tunebuild.prompt.messages import Message
from tunebuild.prompt.template import PromptTemplate
from tunebuild.prompt.tokenizer import PromptTokenizer

#: The key of a turn that holds its reasoning, once :func:`tunebuild.prompt.turns.plain_turn` has read it.
KEY = "reasoning_content"
#: Keys that templates read it from.
KEYS = (KEY, "reasoning", "thinking")

Form = Literal["key", "content", "prompt", "tokens"]

_QUESTION, _REASONING, _ANSWER = "qvxa", "rqzxj", "cwvkf"
_TAG = re.compile(r"<\|?/[A-Za-z_:]{2,32}\|?>|\[/[A-Za-z_]{2,32}\]")
#: Markers that answers hold whatever the template is.
_USUAL = re.compile(r"\s*(<(think|thinking|reasoning)>.*?</\2>)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How reasoning stands in an answer.

    Attributes:
        form: where the template takes it from: a ``key`` of the turn; the turn's ``content``, which it
            prints as it is; only a block that the ``prompt`` opens, since it prints none of it; or nowhere,
            and it is the tokenizer that has ``tokens`` for it.
        opening: text before it, e.g. ``<think>\\n``.
        closing: text between it and the answer, e.g. ``\\n</think>\\n\\n``.
        plain: text before an answer without reasoning, behind the prompt.
        key: the key that the template reads, for the form ``key``.
    """

    form: Form
    opening: str
    closing: str
    plain: str = ""
    key: str = KEY

    @property
    def opener(self) -> str:
        """The opening marker without white space."""
        return self.opening.strip()

    @property
    def closer(self) -> str:
        """The closing marker without white space."""
        return self.closing.strip()

    @property
    def closes_at_once(self) -> str:
        """What follows an opened block that is to stay empty."""
        return self.closing.lstrip()

    def opened_by(self, prompt: str) -> str:
        """The end of a prompt that opens a block, white space and all; empty where it opens none."""
        match = re.search(re.escape(self.opener) + r"\s*\Z", prompt)
        return match[0] if match else ""

    def closed_by(self, prompt: str) -> bool:
        """Whether a prompt closes a block, so that what follows is the answer. Some never open it."""
        return prompt.rstrip().endswith(self.closer)

    def trim(self, reasoning: str, answer: str) -> tuple[str, str]:
        """Both without the line breaks that belong to the markers, where the markers have some."""
        inside, outside = self.closing.split(self.closer)
        if "\n" in self.opening + inside:
            reasoning = reasoning.strip("\n")
        return reasoning, answer.lstrip("\n") if "\n" in outside else answer

    def split(self, text: str, *, opened: bool = False) -> tuple[str, str] | None:
        """Reasoning and answer of a text that holds both; ``None`` where it begins with no whole block.

        Args:
            text: an answer's content.
            opened: whether the prompt opens the block. Then the opening marker may be missing, and the
                closing one ends a line if the template has it so.
        """
        start = text.lstrip()
        if start.startswith(self.opener):
            reasoning, closer, answer = start.removeprefix(self.opener).partition(self.closer)
            return self.trim(reasoning, answer) if closer else None
        ends = r"[ \t]*$" if "\n" in self.closing else ""
        if opened and (found := re.search(rf"(?m){re.escape(self.closer)}{ends}", text)):
            return self.trim(text[: found.start()], text[found.end() :])
        return None

    def separated(self, turn: Message, *, opened: bool) -> Message:
        """A turn whose reasoning stands in :data:`KEY`, if it stood in its content."""
        if self.form == "tokens" or turn.get("role") != "assistant":
            return turn
        known = turn.get(KEY) or ""
        # Beside a key, only a whole block is one. Some files have the same reasoning in both places.
        found = self.split(turn.get("content") or "", opened=opened and not known)
        if found is None or (known and found[0].strip() != known.strip()):
            return turn
        reasoning, answer = found
        bare = {**{key: value for key, value in turn.items() if key != KEY}, "content": answer}
        return {**bare, KEY: known or reasoning} if reasoning.strip() else bare

    def ambiguous(self, turn: Message) -> str:
        """Why a separated turn's reasoning could not be told apart once it is printed; empty if it could."""
        reasoning = turn.get(KEY)
        if not reasoning or turn.get("role") != "assistant" or self.form == "tokens":
            return ""
        if self.closer in reasoning:
            return f"its reasoning holds '{self.closer}', which ends it: what follows would be the answer"
        if self.split(turn.get("content") or "") is not None:
            return (
                "it has reasoning of its own, and another block of reasoning in its content: keep one of them"
            )
        return ""

    def for_template(self, turn: Message) -> Message:
        """A separated turn as the template reads it."""
        reasoning = turn.get(KEY)
        if not reasoning or turn.get("role") != "assistant":
            return turn
        others = {key: value for key, value in turn.items() if key != KEY}
        if self.form == "key":
            return {**others, self.key: reasoning}
        if self.form == "content":
            return {**others, "content": self.opening + reasoning + self.closing + turn["content"]}
        return turn

    def completed(self, prompt: str, text: str, turn: Mapping[str, Any]) -> str:
        """The training text of a turn behind a prompt that opens a block.

        The prompt is the beginning of it, and the model goes on from there: with the reasoning, or by closing
        the empty block at once.

        Args:
            prompt: the prompt before the turn, as text.
            text: the conversation through the turn, as the template prints it.
            turn: the turn, as the template reads it.
        """
        opening = self.opened_by(prompt)
        head = prompt[: len(prompt) - len(opening)]
        if not opening or not text.startswith(head):
            return text
        rest = text[len(head) :]
        reasoning = turn.get(KEY) if self.form == "prompt" else None
        printed = rest.lstrip()
        if printed.startswith(self.opener):
            inside, closer, behind = printed.removeprefix(self.opener).partition(self.closer)
            if not closer or inside.strip():
                return text
            rest = self.trim("", behind)[1]
        elif printed.startswith(self.closer):
            rest = self.trim("", printed.removeprefix(self.closer))[1]
        if reasoning:
            return prompt + self.trim(reasoning, "")[0] + self.closing + rest
        return prompt + self.closes_at_once + rest


def find_reasoning(template: PromptTemplate, tokenizer: PromptTokenizer) -> Reasoning | None:
    """How a template, or else its tokenizer, writes reasoning; ``None`` where neither knows any."""
    return _by_key(template) or _by_content(template) or _by_tokens(tokenizer)


def usual_block(text: str) -> bool:
    """Whether a text begins with a block in the markers that most models share."""
    return _USUAL.match(text) is not None


def _by_key(template: PromptTemplate) -> Reasoning | None:
    for key in KEYS:
        text = _rendered(template, _exchange(**{key: _REASONING}))
        head, found, rest = text.partition(_REASONING)
        closing, answered, _ = rest.partition(_ANSWER)
        if not found or not answered or not closing.strip():
            continue
        start, opening = _parted(template, head, closing)
        if not opening.strip():
            continue
        before = _rendered(template, _exchange()).partition(_ANSWER)[0]
        plain = before.removeprefix(start) if before.startswith(start) else ""
        return Reasoning("key", opening, closing, plain, key)
    return None


def _parted(template: PromptTemplate, head: str, closing: str) -> tuple[str, str]:
    """A text that reasoning follows, as what stands before its opening marker, and the marker."""
    # A closing tag names its opening one, which may stand in the prompt already.
    if tag := _TAG.match(closing.strip()):
        at = head.rfind(tag[0].replace("/", "", 1))
        if at >= 0:
            return head[:at], head[at:]
    prompt = _rendered(template, _exchange()[:1], prompt=True)
    return (prompt, head[len(prompt) :]) if head.startswith(prompt) else (head, "")


def _by_content(template: PromptTemplate) -> Reasoning | None:
    """A block in an answer's content, of which the template knows the closing tag."""
    prompt = _rendered(template, _exchange()[:1], prompt=True)
    before, _, behind = _rendered(template, _exchange()).partition(_ANSWER)
    last_tag = re.search(r"[<\[]\|?[A-Za-z_:]{2,32}\|?[>\]](?=\s*\Z)", prompt)
    named = [re.sub(r"[<\[]\|?", r"\g<0>/", last_tag[0])] if last_tag else []
    for closer in dict.fromkeys([*_TAG.findall(template.source), *named]):
        opener = closer.replace("/", "", 1)
        around_turns = closer in behind or (closer in named and before.rstrip().endswith(opener))
        around_questions = opener in prompt and _QUESTION in prompt[prompt.rfind(opener) :]
        if around_turns or around_questions:
            continue
        content = f"{opener}\n{_REASONING}\n{closer}\n\n{_ANSWER}"
        last = _rendered(template, _exchange(content))
        earlier = _rendered(template, [*_exchange(content), _exchange()[0]])
        opened = re.search(rf"{re.escape(opener)}(\s*)\Z", prompt)
        closed = re.search(rf"{re.escape(closer)}(\s*)\Z", prompt)
        drops = _ANSWER in earlier and _REASONING not in earlier
        if not (opened or closed or drops):
            continue
        # Line breaks around a block are like those at its beginning, or behind its end.
        blank = opened[1] if opened else closed[1][: len(closed[1]) // 2] if closed else "\n"
        form: Form = "content" if _REASONING in last else "prompt"
        plain = closer + 2 * blank if before.rstrip().endswith(closer) else ""
        return Reasoning(form, opener + blank, blank + closer + 2 * blank, plain)
    return None


def _by_tokens(tokenizer: PromptTokenizer) -> Reasoning | None:
    for opener in tokenizer.think_tokens:
        closer = f"{opener[0]}/{opener[1:]}"
        if tokenizer.token_id(closer) is not None:
            return Reasoning("tokens", f"{opener}\n", f"\n{closer}\n\n")
    return None


def _exchange(answer: str = _ANSWER, **more: str) -> list[Message]:
    return [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": answer, **more}]


def _rendered(template: PromptTemplate, turns: Sequence[Message], *, prompt: bool = False) -> str:
    try:
        return template.render(turns, add_generation_prompt=prompt)
    except TunebuildError:
        return ""
