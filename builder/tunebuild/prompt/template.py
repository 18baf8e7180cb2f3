"""A chat template: its text, its name and how it renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jinja2

from tunebuild.errors import TunebuildError, fail
from tunebuild.prompt._jinja import ClockRefused, compile_template, variables_of
from tunebuild.prompt.messages import Conversation, split_tools

#: Names that a template is given by whoever renders it, so that no variable may have them.
RESERVED = frozenset(("messages", "tools", "documents", "add_generation_prompt"))


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
        variables: what else it reads, e.g. ``enable_thinking``.
    """

    name: str
    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    pinned_date: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> frozenset[str]:
        """Variables that it reads, but for those that every template is given."""
        return variables_of(self.source) - RESERVED - self.special_tokens.keys()

    def with_variables(self, variables: Mapping[str, Any]) -> PromptTemplate:
        """The same template with some variables set to other values."""
        return replace(self, variables={**self.variables, **variables}) if variables else self

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
        except Exception as error:  # Jinja makes Python of it, which has limits of its own: nesting, say
            raise fail(
                "template-syntax",
                f"prompt template '{self.name}' cannot be compiled: {str(error) or type(error).__name__}",
                "make it simpler; Python's limits for nested blocks and expressions hold for it, too",
                path="prompt.template",
            ) from error
        tools, turns = split_tools(messages)
        try:
            return compiled.render(
                messages=turns,
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{**self.special_tokens, **self.variables},
            )
        except ClockRefused as error:
            raise fail(
                "template-date",
                f"prompt template '{self.name}' prints today's date, so tomorrow's prompt would differ",
                "pin it: prompt.date: 2026-01-31",
                path="prompt.date",
            ) from error
        except Exception as error:  # a template can run into whatever Python does: 1 / 0, endless recursion
            # Many a template looks at the first message, and then there is none before an answer.
            reason = error if turns else "it needs a turn before the first answer"
            diagnostic = fail("template-refused", f"prompt template '{self.name}' refuses it: {reason}")
            raise PromptRefused(diagnostic.diagnostics) from error
