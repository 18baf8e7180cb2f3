"""The quickstart, built once for all tests of the whole path, and the matrix of architectures."""

from __future__ import annotations

import shutil

import pytest
from filelock import FileLock

from support.quickstart import Quickstart, build_quickstart

_STAGES = ("plan", "train", "merge", "proof", "evaluate", "serve")


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Quickstart:
    """Built by the first test process that wants it; each other works on a copy."""
    own = tmp_path_factory.getbasetemp() / "quickstart"
    if worker_id == "master":
        return build_quickstart(own)
    built = tmp_path_factory.getbasetemp().parent / "quickstart"
    with FileLock(f"{built}.lock"):
        if not (built / "digest").is_file():
            shutil.rmtree(built, ignore_errors=True)
            build_quickstart(built)
        shutil.copytree(built, own, symlinks=True)
    return Quickstart.at(own)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The matrix of architectures and stages."""
    found = {
        str(properties["architecture"]): str(properties["stages"]).split()
        for reports in terminalreporter.stats.values()
        for report in reports
        if "architecture" in (properties := dict(getattr(report, "user_properties", ())))
    }
    if not found:
        return
    widest = max(map(len, found))
    terminalreporter.section("architectures")
    terminalreporter.write_line(" " * widest + "  " + "  ".join(_STAGES))
    for name, done in sorted(found.items()):
        cells = "  ".join(("yes" if stage in done else "NO").center(len(stage)) for stage in _STAGES)
        terminalreporter.write_line(f"{name:<{widest}}  {cells}")
