"""The quickstart, built once for all tests of the whole path."""

from __future__ import annotations

import pytest

from support.quickstart import Quickstart, build_quickstart


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    return build_quickstart(tmp_path_factory.mktemp("quickstart"))
