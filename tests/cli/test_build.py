"""Where a build writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunebuild.report.folder import reports_beside


@pytest.mark.parametrize(
    ("output", "reports"),
    [
        ("dist/bot.tar", "dist/bot-report"),
        ("dist/bot-1.2.tar", "dist/bot-1.2-report"),
        ("dist/bot-1.2", "dist/bot-1.2-report"),
        ("dist/bot", "dist/bot-report"),
    ],
)
def test_reports_are_named_after_the_whole_output(output, reports):
    assert reports_beside(Path(output)) == Path(reports)
