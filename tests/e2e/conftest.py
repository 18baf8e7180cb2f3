"""The quickstart, built once for all tests of the whole path."""

from __future__ import annotations

import pytest

from support.quickstart import Quickstart, build_quickstart


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    return build_quickstart(tmp_path_factory.mktemp("quickstart"))


_STAGES = ("plan", "train", "merge", "proof", "evaluate", "serve")
_MATRIX: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def matrix(pytestconfig: pytest.Config) -> dict[str, list[str]]:
    """By architecture: the stages that it went through, in their order."""
    return pytestconfig.stash.setdefault(_MATRIX, {})


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """The matrix of architectures and stages."""
    if not (found := config.stash.get(_MATRIX, {})):
        return
    widest = max(map(len, found))
    terminalreporter.section("architectures")
    terminalreporter.write_line(" " * widest + "  " + "  ".join(_STAGES))
    for name, done in found.items():
        cells = "  ".join(("yes" if stage in done else "NO").center(len(stage)) for stage in _STAGES)
        terminalreporter.write_line(f"{name:<{widest}}  {cells}")
