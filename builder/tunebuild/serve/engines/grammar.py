"""Constraints as llguidance's grammars: what one is, and whether it can be followed."""

from __future__ import annotations

from llguidance import LLMatcher

from tunebuild.serve.engines.request import Constraint


def compile_grammar(constraint: Constraint) -> str:
    """llguidance's own form of a constraint.

    Raises:
        ValueError: the schema is no JSON object.
    """
    if constraint.kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(constraint.text)
    return LLMatcher.grammar_from_lark(constraint.text)


def grammar_problem(constraint: Constraint) -> str:
    """Why a constraint cannot be followed; empty if it can."""
    try:
        found = LLMatcher.validate_grammar(compile_grammar(constraint))
    except ValueError as error:
        found = str(error)
    return found.splitlines()[0] if found else ""
