"""``WWW-Authenticate`` in the spellings that registries use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic", [Challenge("basic")]),
        ('Basic realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://auth/token",service="reg",scope="repository:a:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://auth/token", "service": "reg", "scope": "repository:a:pull,push"},
                )
            ],
        ),
        (
            'Bearer realm="r" , Basic realm=x',
            [Challenge("bearer", {"realm": "r"}), Challenge("basic", {"realm": "x"})],
        ),
        (r'BEARER Realm="a\"b"', [Challenge("bearer", {"realm": 'a"b'})]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ("", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges(header)) == expected


@given(st.text())
def test_any_header_is_read_without_an_error(header: str) -> None:
    assert isinstance(parse_challenges(header), tuple)
