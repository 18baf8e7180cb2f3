"""The NVIDIA driver and card, against the CUDA release and the kernels of the installed torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tunebuild.preflight.doctor.finding import Finding, Needs, gigabytes, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine
from tunebuild.serve.drivers import needed_driver

NAME = "card"

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader")
_TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "kernels": [], "works": ""}
if torch.version.cuda:
    found["kernels"] = torch.cuda.get_arch_list()
    try:
        (torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum().item()
    except Exception as error:
        found["works"] = str(error).splitlines()[0]
print(json.dumps(found))
"""
_INSTALL = "install torch from the index of a CUDA release that the driver runs (docs/install.md)"


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """The cards, then torch on each of them."""
    if not machine.has("nvidia-smi"):
        yield ok("there is no NVIDIA driver: training runs on the CPU")
        return
    asked = machine.run(*_QUERY, timeout=20)
    if asked.code != 0:
        fix = "install or reload the NVIDIA driver; in a container, start it with its GPUs"
        yield problem(f"the NVIDIA driver does not answer: {asked.said}", fix)
        return
    cards = [[part.strip() for part in line.split(",")] for line in asked.out.splitlines() if "," in line]
    if not cards:
        yield warning("the NVIDIA driver has no card, so training runs on the CPU", "is a card assigned?")
        return
    torch = _torch(machine)
    for name, driver, capability, memory in cards:
        yield from _card(name, driver, capability, memory, torch)


def _torch(machine: Machine) -> dict[str, Any] | str:
    """What the installed torch is, or why that is not known."""
    if machine.version("torch") is None:
        return "torch is not installed"
    ran = machine.python(_TORCH)
    if ran.code != 0:
        return f"torch cannot be imported: {ran.said}"
    found: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
    return found


def _card(
    name: str, driver: str, capability: str, memory: str, torch: dict[str, Any] | str
) -> Iterator[Finding]:
    size = gigabytes(int(re.sub(r"\D", "", memory) or 0) * 2**20)
    card = f"{name} ({size}, driver {driver})"
    if isinstance(torch, str):
        yield warning(f"{card} is there, but {torch}", "install the extra 'train'")
        return
    if not torch["cuda"]:
        yield problem(f"torch {torch['version']} is a build for CPUs, so {card} is not used", _INSTALL)
        return
    least = needed_driver(torch["cuda"])
    if int(driver.partition(".")[0]) < least:
        text = f"driver {driver} is older than {least}, which CUDA {torch['cuda']} of torch needs"
        yield problem(text, f"update the driver, or {_INSTALL}")
    elif not _runs(capability, torch["kernels"]):
        text = f"torch {torch['version']} has no kernels for {name}, whose compute capability is {capability}"
        yield problem(text, "install a torch that has: its release notes list the capabilities")
    elif torch["works"]:
        yield problem(f"torch cannot compute on {card}: {torch['works']}", "see 'nvidia-smi' and its log")
    else:
        yield ok(f"torch {torch['version']} computes on {card}")


def _runs(capability: str, kernels: Sequence[str]) -> bool:
    """Whether compiled kernels, or code that the driver compiles, run on a card.

    Kernels run on cards of the same major capability that are not older, ``compute_`` code on all that are
    not. Source: CUDA C++ programming guide, binary and PTX compatibility.
    """
    major, minor = (int(part) for part in capability.split("."))
    for kernel in kernels:
        if not (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", kernel)):
            continue
        kind, special = found[1], found[4]
        built = (int(found[2]), int(found[3]))
        if special == "a":
            if built == (major, minor):
                return True
        elif built <= (major, minor) and (kind == "compute" or built[0] == major):
            return True
    return False
