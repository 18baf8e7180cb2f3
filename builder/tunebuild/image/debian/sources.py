"""Reads where this machine gets its Debian packages from. No mirror is ever named in our own code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail

_ETC = Path("/etc/apt")
_ARMOUR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True, slots=True)
class Repository:
    """One suite of one mirror.

    Attributes:
        uri: the mirror, without a slash at the end.
        suite: e.g. ``bookworm`` or ``bookworm-security``.
        components: e.g. ``("main",)``.
        signed_by: whose keys may sign its index: paths of keyrings, or one armoured key itself.
            Empty means the keys that apt trusts for everything.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: tuple[str, ...] = ()


def read_sources(etc: Path = _ETC) -> list[Repository]:
    """The binary repositories with a ``main`` component that apt is set up with, in apt's order of files.

    Raises:
        TunebuildError: there is none.
    """
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    found: list[Repository] = []
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text("utf-8", "replace")
        if file.suffix == ".sources":
            found.extend(_deb822(text))
        elif file.suffix == ".list":
            found.extend(_one_line(text))
    usable = [r for r in found if "main" in r.components]
    if not usable:
        raise fail(
            "no-mirror",
            f"apt is set up with no Debian mirror in {etc}",
            "image.base: apt takes its packages from the mirror that this machine uses",
            path="image.base",
        )
    return usable


def _deb822(text: str) -> Iterator[Repository]:
    text = re.sub(r"(?m)^#.*\n?", "", text)
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[key] = fields.get(key, "") + "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed_by = _signed_by(fields.get("signed-by", ""))
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield _repository(uri, suite, fields.get("components", "").split(), signed_by)


def _one_line(text: str) -> Iterator[Repository]:
    for line in text.splitlines():
        match = re.match(
            r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>\S+\s+\S+.*)", line.partition("#")[0]
        )
        if match is None:
            continue
        uri, suite, *components = match["rest"].split()
        options = dict(o.split("=", 1) for o in (match["options"] or "").split() if "=" in o)
        yield _repository(uri, suite, components, _signed_by(options.get("signed-by", "")))


def _signed_by(value: str) -> tuple[str, ...]:
    if _ARMOUR in value:
        # A key in the file itself; a dot stands for an empty line.
        return ("\n".join("" if line == "." else line for line in value.strip().splitlines()) + "\n",)
    return tuple(value.replace(",", " ").split())


def _repository(uri: str, suite: str, components: list[str], signed_by: tuple[str, ...]) -> Repository:
    return Repository(uri.rstrip("/"), suite, tuple(components), signed_by)
