"""What a check of the machine found, and what a spec needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: ``problem`` if something that is asked of the machine does not work; ``warning`` if something
            else would not.
        text: one sentence: what is so, and what follows from it.
        fix: what to do about it; empty if nothing.
    """

    status: Status
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    """As it should be."""
    return Finding("ok", text)


def warning(text: str, fix: str) -> Finding:
    """Does not work, and is not needed for what was asked."""
    return Finding("warning", text, fix)


def problem(text: str, fix: str) -> Finding:
    """Is needed and does not work."""
    return Finding("problem", text, fix)


@dataclass(frozen=True, slots=True)
class Needs:
    """What building a spec asks of the machine. Sizes in bytes.

    Attributes:
        name: the spec's name.
        extras: of the installation.
        quantized: whether training holds the base in 4 bits.
        method: of training, for advice.
        registry: host and repository that images are pushed to; ``None`` if the spec names none.
        hub: kind and name of the repositories that it takes from a hub, and the reference to a secret that
            each is read with, if one is named.
        memory: what training is estimated to take, and what its device has, if that is known; ``None`` if no
            plan could be made.
        disk: the most that is on disk at once, what is free, and what is lacking; ``None`` likewise.
        unplanned: why there is no plan; empty if there is one.
        advice: what to do about that.
        refused: whether a build would be refused for the same reason.
    """

    name: str
    extras: tuple[str, ...] = ("train",)
    quantized: bool = False
    method: str = "lora"
    registry: tuple[str, str] | None = None
    hub: tuple[tuple[str, str, str | None], ...] = ()
    memory: tuple[int, int | None] | None = None
    disk: tuple[int, int, int] | None = None
    unplanned: str = ""
    advice: str = ""
    refused: bool = False


def gigabytes(count: float) -> str:
    """As disks and cards are sold."""
    return f"{count / 1e9:.1f} GB"
