"""The processors that images are made for, and what each library calls them."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from tunebuild.errors import fail


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of processor.

    Attributes:
        name: as Debian and OCI call it.
        machine: as wheels and ``uname -m`` do.
        triplet: Debian's directory of libraries.
        loader: the dynamic loader in it.
    """

    name: str
    machine: str
    triplet: str
    loader: str


ARCHITECTURES = (
    Architecture("amd64", "x86_64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    Architecture("arm64", "aarch64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
)


def architecture_of(image_platform: str) -> Architecture:
    """The one of ``image.platform``, e.g. ``linux/arm64``."""
    name = image_platform.partition("/")[2]
    return next(one for one in ARCHITECTURES if one.name == name)


def this_machine() -> Architecture:
    """The one that runs this.

    Raises:
        TunebuildError: ``bytecode``: images cannot be made here.
    """
    machine = platform.machine()
    for one in ARCHITECTURES:
        if one.machine == machine:
            return one
    known = " or ".join(one.machine for one in ARCHITECTURES)
    raise fail("bytecode", f"images are made on {known}, not on {machine}", path="image.platform")
