"""What is said when an endpoint does not end as it should."""

from __future__ import annotations

import contextlib

import pytest

from tunebuild.cli._serving import ending_with
from tunebuild.errors import TunebuildError, fail


def cannot_stop():
    raise fail("run-failed", "the runtime has gone")


@contextlib.contextmanager
def interrupted():
    yield
    raise KeyboardInterrupt


def test_the_first_error_is_kept_when_stopping_fails_too(capsys):
    removed = []
    with (
        pytest.raises(TunebuildError, match="the answers are wrong"),
        ending_with(lambda: removed.append("image")),
        ending_with(cannot_stop),
    ):
        raise fail("wrong", "the answers are wrong")
    assert removed == ["image"]
    assert "not cleared up: the runtime has gone" in capsys.readouterr().err


@pytest.mark.parametrize("how", [contextlib.nullcontext, interrupted])
def test_failing_to_stop_a_server_is_an_error_if_nothing_else_failed(how):
    with pytest.raises(TunebuildError, match="the runtime has gone"), ending_with(cannot_stop), how():
        pass
