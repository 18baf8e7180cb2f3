"""Prints which property holds for which published tokenizer, at the end of a run."""

from __future__ import annotations

import re

_NODE = re.compile(r"prompt/test_real_\w+\.py::test_(\w+)\[(\w+)\]$")
_SIGNS = {"passed": "yes", "failed": "NO", "skipped": "-"}


def pytest_terminal_summary(terminalreporter):
    """The matrix of properties and tokenizers, out of the reports."""
    found: dict[str, dict[str, str]] = {}
    for outcome, sign in _SIGNS.items():
        for report in terminalreporter.stats.get(outcome, []):
            if match := _NODE.search(getattr(report, "nodeid", "")):
                found.setdefault(match[1].replace("_", " "), {})[match[2]] = sign
    if not found:
        return
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    widest = max(map(len, found))
    terminalreporter.section("published tokenizers")
    terminalreporter.write_line(" " * widest + "  " + "  ".join(names))
    for title, row in found.items():
        cells = "  ".join(row.get(name, "").center(len(name)) for name in names)
        terminalreporter.write_line(f"{title:<{widest}}  {cells}")
