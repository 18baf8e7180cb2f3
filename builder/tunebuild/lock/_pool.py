"""Pins of several runtimes, each written once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tunebuild.lock.spec_lock import Pins, RuntimeLock
from tunebuild.store import Digest, digest_json

# What a requirement says of the purpose of a runtime, beside platform and device.
_PURPOSES = ("vllm", "peft")
_NAME = re.compile(r"[^\w-]")
_MARK = " ("


def runtime_names(runtimes: Sequence[RuntimeLock]) -> dict[str, RuntimeLock]:
    """Different runtimes under names for people, such as ``linux/amd64 cuda vllm``, in order."""
    by_name: dict[str, dict[str, RuntimeLock]] = {}
    for one in runtimes:
        wanted = {_NAME.split(requirement, maxsplit=1)[0] for requirement in one.requirements}
        purposes = [purpose for purpose in _PURPOSES if purpose in wanted]
        name = " ".join((one.platform, one.device, *purposes))
        by_name.setdefault(name, {})[identity(one)] = one
    named = {
        name if len(same) == 1 else f"{name} {digest.removeprefix('sha256:')[:8]}": one
        for name, same in by_name.items()
        for digest, one in same.items()
    }
    return dict(sorted(named.items()))


def identity(runtime: RuntimeLock) -> Digest:
    """The same for equal runtimes."""
    return digest_json(runtime.model_dump(mode="json"))


def pooled(pins: Mapping[str, Pins]) -> tuple[Pins, dict[str, tuple[str, ...]]]:
    """The pins of several runtimes together, and each runtime's names of its own.

    A pin is called as its package is. Where runtimes have different pins of one package, each is called by
    the first runtime that has it, too: ``torch (linux/amd64 cpu)``.
    """
    found: dict[str, dict[str, str]] = {}
    for runtime in sorted(pins):
        for name, pin in pins[runtime].items():
            found.setdefault(name, {}).setdefault(pin, runtime)

    def key(name: str, pin: str) -> str:
        return name if len(found[name]) == 1 else f"{name}{_MARK}{found[name][pin]})"

    pool = {key(name, pin): pin for name, same in found.items() for pin in same}
    names = {
        runtime: tuple(sorted(key(name, pin) for name, pin in own.items())) for runtime, own in pins.items()
    }
    return dict(sorted(pool.items())), names


def pin_name(key: str) -> str:
    """The package that a pin is of."""
    return key.partition(_MARK)[0]
