"""Image names: ``[registry/]repository[:tag][@digest]``, checked once, at the edge."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunebuild.errors import fail
from tunebuild.store.digest import Digest

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_HOST}/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DEFAULT_REGISTRY = "docker.io"


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A parsed name. ``str()`` spells it; the tag is ``latest`` where neither tag nor digest was given."""

    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse and check.

        Raises:
            TunebuildError: ``bad-image-reference`` with what is wrong with it.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or len(match["repository"]) > 255:
            hint = "write [registry/]name[:tag], with the name in lower case"
            raise fail("bad-image-reference", f"{text!r} is not an image reference", hint)
        digest = Digest(match["digest"]) if match["digest"] else None
        tag = match["tag"] or ("" if digest else "latest")
        return cls(match["repository"], tag, digest)

    @property
    def registry(self) -> str:
        """Host and port, ``docker.io`` where the name has none (the rule that Docker and Podman share)."""
        first, slash, _ = self.repository.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        return first if is_host else _DEFAULT_REGISTRY

    @property
    def path(self) -> str:
        """The repository without its registry, as the registry's API spells it."""
        name = self.full_name.removeprefix(f"{self.registry}/").partition("@")[0]
        return name.removesuffix(f":{self.tag}") if self.tag else name

    @property
    def full_name(self) -> str:
        """The name with its registry, as containerd and Podman spell it."""
        if self.repository.startswith(self.registry + "/"):
            return str(self)
        library = "" if "/" in self.repository else "library/"
        return f"{_DEFAULT_REGISTRY}/{library}{self}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")
