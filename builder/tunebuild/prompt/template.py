"""A chat template: its text, its name and how it renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jinja2

from tunebuild.errors import TunebuildError, fail
from tunebuild.prompt._jinja import ClockRefused, compile_template
from tunebuild.prompt.messages import Conversation


class PromptRefused(TunebuildError):
    """The template, or the prompt contract, refuses this conversation. Bad data or a bad request."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Jinja source plus everything it may read besides the messages.

    Attributes:
        name: a shipped template's name, ``base``, or the file's name; for people.
        source: the Jinja text.
        special_tokens: variables such as ``bos_token``; absent tokens are rendered as nothing.
        pinned_date: ISO date for templates that print one.
    """

    name: str
    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    pinned_date: str | None = None

    def render(self, messages: Conversation, *, add_generation_prompt: bool) -> str:
        """The prompt's text.

        Raises:
            PromptRefused: the template raised (a role it does not know, an order it does not allow).
            TunebuildError: the template itself is broken, or prints a date that is not pinned.
        """
        try:
            compiled = compile_template(self.source, self.pinned_date)
        except jinja2.TemplateSyntaxError as error:
            raise fail(
                "template-syntax",
                f"prompt template '{self.name}' line {error.lineno}: {error.message}",
                "fix the template; it must be valid Jinja",
                path="prompt.template",
            ) from error
        try:
            return compiled.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except ClockRefused as error:
            raise fail(
                "template-date",
                f"prompt template '{self.name}' prints today's date, so tomorrow's prompt would differ",
                "pin it: prompt.date: 2026-01-31",
                path="prompt.date",
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            # Many a template looks at the first message, and then there is none before an answer.
            reason = error if messages else "it needs a turn before the first answer"
            diagnostic = fail("template-refused", f"prompt template '{self.name}' refuses it: {reason}")
            raise PromptRefused(diagnostic.diagnostics) from error
