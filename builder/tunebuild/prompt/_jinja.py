"""The sandboxed Jinja environment of chat templates: the same settings as transformers uses.

Source of the settings: ``transformers.utils.chat_template_utils``. A differential test holds the two
equal over all shipped templates. One thing differs on purpose: the clock. A template that prints today's
date would serve another prompt tomorrow than it was trained on, so ``strftime_now`` answers with the date
pinned in the spec and refuses where there is none.
"""

from __future__ import annotations

import json
from datetime import date
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ClockRefused(jinja2.TemplateError):
    """The template asks for today's date and the spec pins none."""


class _GenerationTag(Extension):
    """Accepts ``{% generation %}...{% endgeneration %}`` and renders its body as it is.

    Supervision here is by token prefix, so the marks carry no information for us; templates that have
    them must still render.
    """

    tags = {"generation"}  # noqa: RUF012 - the name and type are Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which would change the prompt.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


_DICT_ATTRIBUTES = frozenset(dir(dict))


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, which finds an item of a plain dictionary without looking for an attribute first."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute]
        return super().getattr(obj, attribute)


@lru_cache(maxsize=32)
def compile_template(source: str, pinned_date: str | None) -> jinja2.Template:
    """Compile a chat template.

    Args:
        source: the template's text.
        pinned_date: ISO date that ``strftime_now`` formats; ``None`` to refuse the call.

    Raises:
        jinja2.TemplateSyntaxError: with the line in the template.
    """

    def strftime_now(pattern: str) -> str:
        if pinned_date is None:
            raise ClockRefused("the template prints today's date")
        return date.fromisoformat(pinned_date).strftime(pattern)

    environment = _environment()
    environment.globals["strftime_now"] = strftime_now
    template = environment.from_string(source)
    # Jinja copies its chain of mappings for each rendering; a plain dictionary is many times faster to copy.
    template.globals = dict(template.globals)
    return template


@lru_cache(maxsize=32)
def variables_of(source: str) -> frozenset[str]:
    """Names that a chat template reads and does not set itself; none of one that cannot be read."""
    environment = _environment()
    try:
        found = meta.find_undeclared_variables(environment.parse(source))
    except jinja2.TemplateSyntaxError:
        return frozenset()
    return frozenset(found - environment.globals.keys() - {"strftime_now"})


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment
