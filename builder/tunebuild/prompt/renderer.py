"""The one renderer: what training supervises and what the server feeds the model come from here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tunebuild.prompt.answers import Answers
from tunebuild.prompt.calls import CallFormat, CallsUnknown, find_call_format
from tunebuild.prompt.detokenizer import Detokenizer
from tunebuild.prompt.example import Example, Samples
from tunebuild.prompt.messages import Conversation, Message, split_tools, with_system, with_tools
from tunebuild.prompt.reasoning import find_reasoning
from tunebuild.prompt.supervision import Answer, Encode, Supervision, or_refusal, refused
from tunebuild.prompt.template import PromptRefused, PromptTemplate
from tunebuild.prompt.texts import PlainAnswers, Texts
from tunebuild.prompt.tokenizer import PromptTokenizer
from tunebuild.prompt.turn_end import find_turn_end


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """What the spec says about the prompt, beside the template.

    Attributes:
        system: system text for conversations that bring none; ``None`` leaves it to the template.
        extra_stop_ids: ids that end generation besides the template's end of turn, e.g. the base model's
            own end-of-sequence ids.
        plain_answers: what becomes of answers without reasoning where the prompt opens a block for it.
    """

    system: str | None = None
    extra_stop_ids: tuple[int, ...] = ()
    plain_answers: PlainAnswers = "close"


class Renderer:
    """Renders conversations to token ids, for training and for serving.

    Raises (on construction):
        TunebuildError: the template does not end an assistant turn with a control token, so a model
            trained on it could never learn to stop.
    """

    def __init__(
        self, template: PromptTemplate, tokenizer: PromptTokenizer, settings: PromptSettings | None = None
    ) -> None:
        self.template = template
        tokenizer = tokenizer.under(template)
        self.tokenizer = tokenizer
        self.settings = settings or PromptSettings()
        self.turn_end_id = find_turn_end(template, tokenizer)
        self.reasoning = find_reasoning(template, tokenizer)
        self.texts = self._texts_of(template)
        self._turn_end = tokenizer.token_text(self.turn_end_id)
        self.supervision = Supervision(tokenizer, self.turn_end_id)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which generation stops."""
        return frozenset((self.turn_end_id, *self.settings.extra_stop_ids))

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` of everything that shapes a prompt."""
        parts = {
            "template": self.template.source,
            "special_tokens": dict(self.template.special_tokens),
            "date": self.template.pinned_date,
            "tokenizer": hashlib.sha256(self.tokenizer.definition.encode()).hexdigest(),
            "system": self.settings.system,
            "stop_ids": sorted(self.stop_ids),
        }
        if self.settings.plain_answers != "close":
            parts["plain_answers"] = self.settings.plain_answers
        if self.template.variables:
            parts["variables"] = dict(self.template.variables)
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def prompt_text(self, messages: Conversation) -> str:
        """The prompt as text, for people to look at. Never tokenize it: use :meth:`prompt_ids`."""
        return self.texts.prompt(self.texts.prepared(messages))

    def prompt_ids(self, messages: Conversation, variables: Mapping[str, Any] | None = None) -> list[int]:
        """Ids that the model is fed to answer ``messages``.

        Args:
            messages: the conversation.
            variables: of the template, where they are others than those of training.

        Raises:
            PromptRefused: the template refuses the conversation.
        """
        texts = self._texts_of(self.template.with_variables(variables)) if variables else self.texts
        return self.tokenizer.encode(texts.prompt(self.tokenizer.quote(texts.prepared(messages))))

    def example(self, messages: Conversation) -> Example:
        """The training sample of a conversation that ends with an assistant turn.

        For each assistant turn the prompt before it, rendered as the server renders it, must be an exact
        token prefix of the whole; what follows up to the end-of-turn token is what the model learns.

        Raises:
            PromptRefused: the conversation does not end with an assistant turn, the template refuses it,
                rewrites history, or does not keep the prompt as a prefix.
        """
        return self.supervision.example(self._answers(messages), self.tokenizer.encode)

    def examples(self, messages: Conversation) -> Samples:
        """The training samples of a conversation, each with the turns that it holds.

        One, unless the template rewrites what was said before once more turns follow, as templates of
        reasoning models do, or the tokenizer joins a prompt's end with an answer's beginning. Then the model
        is asked with another history at each answer than it has written, so each answer is a sample of its
        own and its only supervised part.

        Raises:
            PromptRefused: as :meth:`example`, where such samples are no way out.
        """
        (found,) = self.examples_of([messages])
        if isinstance(found, PromptRefused):
            raise found
        return found

    def examples_of(self, conversations: Sequence[Conversation]) -> list[Samples | PromptRefused]:
        """:meth:`examples` of many conversations, tokenized together; of a refused one, the refusal."""
        rendered = [or_refusal(self._answers, messages) for messages in conversations]
        encode = self.tokenizer.encoder(
            answers[-1].through for answers in rendered if not isinstance(answers, PromptRefused)
        )
        self.supervision.check_seams(rendered, encode)
        return [
            answers
            if isinstance(answers, PromptRefused)
            else or_refusal(self._samples, list(messages), answers, encode)
            for messages, answers in zip(conversations, rendered, strict=True)
        ]

    def separated(self, messages: Conversation) -> list[Message]:
        """The same conversation; reasoning in an answer's content stands under a key of its own instead."""
        return self.texts.separated(messages)

    def training_text(self, messages: Conversation) -> str:
        """A conversation as it is trained on, for comparisons. Never tokenise it: use :meth:`example`.

        Raises:
            PromptRefused: as :meth:`example`, where it is about the text.
        """
        return self.texts.through(self.texts.prepared(messages))

    def refuses_system(self, messages: Conversation) -> bool:
        """Whether the template takes a conversation that it refuses once the system turn is left out."""
        tools, turns = split_tools(with_system(messages, self.settings.system))
        if not turns or turns[0]["role"] != "system":
            return False
        rest = with_tools(turns[1:], tools)
        rendered = or_refusal(self.template.render, rest, add_generation_prompt=False)
        return not isinstance(rendered, PromptRefused)

    def ignores_calls(self, messages: Conversation) -> bool:
        """Whether a conversation has tool calls and the template prints nothing of them."""
        if not any(turn.get("tool_calls") for turn in messages):
            return False
        turns = with_system(messages, self.settings.system)
        bare = [{key: turn[key] for key in turn if key != "tool_calls"} for turn in turns]
        render = self.template.render
        whole, rest = (or_refusal(render, said, add_generation_prompt=False) for said in (turns, bare))
        return whole == rest

    def plain_example(self, text: str) -> Example:
        """The sample of text outside a conversation: all of it, and its end, is supervised."""
        begin = self.tokenizer.token_id(self.template.special_tokens.get("bos_token", ""))
        head = [] if begin is None else [begin]
        end = self.tokenizer.token_id(self.template.special_tokens.get("eos_token", ""))
        ids = [*head, *self.encode_text(text), self.turn_end_id if end is None else end]
        return Example(ids, ((len(head), len(ids)),))

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text that a user typed: control-token spellings stay text."""
        quoted = self.tokenizer.quote([{"content": text}])[0]["content"]
        return self.tokenizer.encode(quoted)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without its end-of-turn token."""
        return self.tokenizer.decode([i for i in ids if i not in self.stop_ids])

    def detokenizer(self, *, calls: bool = False) -> Detokenizer:
        """A fresh incremental decoder for plain text; ``calls`` has it spell what tool calls are made of."""
        return Detokenizer(self.tokenizer, self._call_ids if calls else frozenset())

    def answer_detokenizer(self, *, calls: bool = False) -> Detokenizer:
        """The same for an answer in a conversation; spells the markers of reasoning, too."""
        return self.answers.detokenizer(self._call_ids if calls else frozenset())

    @cached_property
    def call_format(self) -> CallFormat | None:
        """How tool calls are printed; ``None`` where they cannot be parsed, see :attr:`no_calls`."""
        return self._calls if isinstance(self._calls, CallFormat) else None

    @cached_property
    def no_calls(self) -> str:
        """Why requests can bring no tools; empty where they can."""
        return "" if isinstance(self._calls, CallFormat) else self._calls

    @cached_property
    def _calls(self) -> CallFormat | str:
        try:
            return find_call_format(self.template, self._turn_end)
        except CallsUnknown as unknown:
            return f"template '{self.template.name}' {unknown}"

    @cached_property
    def _call_ids(self) -> frozenset[int]:
        """Special tokens of tool calls, which plain decoding leaves out."""
        if (found := self.call_format) is None:
            return frozenset()
        text = "".join((found.opening, *found.inside, found.again or "", found.end))
        return frozenset(i for i in self.tokenizer.encode(text) if self.tokenizer.is_special(i))

    @cached_property
    def answers(self) -> Answers:
        """Parts answers into reasoning and text."""
        return Answers(self.tokenizer, self.reasoning, self.stop_ids, self.texts.closes)

    def _texts_of(self, template: PromptTemplate) -> Texts:
        return Texts(template, self.reasoning, self.settings.system, self.settings.plain_answers)

    def _answers(self, messages: Conversation) -> list[Answer]:
        turns = self.texts.prepared(messages)
        if not turns or turns[-1]["role"] != "assistant":
            raise refused("no-target", "the conversation does not end with an assistant turn")
        self.texts.check_reasoning(messages)
        quoted = self.tokenizer.quote(turns)
        places = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        prompts = [self.texts.prompt(quoted[:index]) for index in places]
        return [
            Answer(index, prompt, self.texts.through(quoted[: index + 1], prompt))
            for index, prompt in zip(places, prompts, strict=True)
        ]

    def _samples(self, messages: list[Message], answers: list[Answer], encode: Encode) -> Samples:
        try:
            return [(messages, self.supervision.example(answers, encode))]
        except PromptRefused as refusal:
            if refusal.diagnostics[0].code not in ("history-rewritten", "prompt-not-prefix"):
                raise
        # The spec's system text, where there is one, stands before the first of the messages.
        before = answers[-1].index + 1 - len(messages)
        return [(messages[: a.index + 1 - before], self.supervision.example_of(a, encode)) for a in answers]
