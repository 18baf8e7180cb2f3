"""Diagnostics for machines: JSON, and SARIF 2.1.0 for code hosts that show findings beside the lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tunebuild import __version__
from tunebuild.errors import Diagnostic

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_json(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """``{"valid": ..., "diagnostics": [...]}``; places are ``null`` where there is none."""
    return {"valid": not diagnostics, "diagnostics": [_plain(d) for d in diagnostics]}


def to_sarif(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """A SARIF log of one run; the codes are its rules."""
    codes = sorted({d.code for d in diagnostics})
    driver = {"name": "tunebuild", "version": __version__, "rules": [{"id": code} for code in codes]}
    results = [_result(d, codes.index(d.code)) for d in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _plain(diagnostic: Diagnostic) -> dict[str, Any]:
    where = diagnostic.position
    return {
        "code": diagnostic.code,
        "message": diagnostic.message,
        "hint": diagnostic.hint or None,
        "path": diagnostic.path or None,
        "file": where.file if where else None,
        "line": where.line or None if where else None,
        "column": where.column or None if where else None,
    }


def _result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    head = f"{diagnostic.path}: " if diagnostic.path else ""
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": head + diagnostic.text},
    }
    if (where := diagnostic.position) and where.line:  # an option has no place in a file
        region = {"startLine": where.line, "startColumn": where.column}
        place = {"artifactLocation": {"uri": quote(where.file, errors="surrogateescape")}, "region": region}
        result["locations"] = [{"physicalLocation": place}]
    return result
