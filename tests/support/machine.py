"""A machine that answers as a test says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunebuild.preflight.doctor.machine import Machine, Ran


class AnyMachine(Machine):
    """Takes all its answers from what it is made with; asks nothing else.

    Args:
        store: where stages would be kept.
        versions: of installed packages.
        ran: what a program's first word, or ``python``, ends with.
        free: bytes on the disk.
        answers: by the beginning of an address.
        locked: why nothing can be written.
    """

    def __init__(
        self,
        store: Path = Path("/store"),
        *,
        versions: Mapping[str, str] | None = None,
        ran: Mapping[str, Ran] | None = None,
        free: int = 10**12,
        answers: Mapping[str, int | str] | None = None,
        locked: str = "",
    ) -> None:
        super().__init__(store)
        self.versions, self.ran, self.bytes = versions, ran or {}, free
        self.answers, self.locked = answers or {}, locked
        self.asked: list[tuple[str, str]] = []

    def run(self, *argv: str, timeout: float = 0) -> Ran:
        """As it was told."""
        return self.ran.get(Path(argv[0]).name, self.ran.get("pip" if "pip" in argv else "", _ABSENT))

    def python(self, program: str) -> Ran:
        """As it was told."""
        return self.ran.get("python", _ABSENT)

    def has(self, program: str) -> bool:
        """Whether it was told what that does."""
        return program in self.ran

    def version(self, distribution: str) -> str | None:
        """As it was told; the real one if it was told of none."""
        return super().version(distribution) if self.versions is None else self.versions.get(distribution)

    def free(self, place: Path) -> int:
        """As it was told."""
        return self.bytes

    def writable(self, place: Path) -> str:
        """As it was told."""
        return self.locked

    def get(
        self,
        url: str,
        proxies: Mapping[str, str] | None = None,
        token: str = "",
        tls: object = None,
    ) -> int | str:
        """As it was told."""
        self.asked.append((url, token))
        return next((answer for start, answer in self.answers.items() if url.startswith(start)), "refused")


_ABSENT = Ran(None, "", "no such program")
