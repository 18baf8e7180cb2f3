"""Prints the table of faults when the tests have run."""

from __future__ import annotations

from support.faults import TABLE


def pytest_terminal_summary(terminalreporter):
    if not TABLE:
        return
    terminalreporter.section("faults put into merges, and caught by the module's name")
    for line in TABLE.lines():
        terminalreporter.write_line(line)
