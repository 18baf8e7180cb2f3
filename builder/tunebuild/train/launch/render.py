"""Renders what starts a training on several machines: for torchrun, Slurm or Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tunebuild import resources
from tunebuild.errors import fail
from tunebuild.spec import LoadedSpec

Launcher = Literal["torchrun", "slurm", "kubernetes"]

_FILES = {"torchrun": "torchrun.sh.j2", "slurm": "slurm.sh.j2", "kubernetes": "kubernetes.yaml.j2"}
_MOUNT = "/work"
_CLAIM = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = 63 - len("-63")  # a pod is called after its job, with its number; such names have 63 characters


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launcher is told besides the spec.

    Attributes:
        store: where stages are kept, on the shared volume; in a Kubernetes job it is on the claim's.
        overrides: ``PATH=VALUE`` texts.
        port: where the first node listens.
        image: has tunebuild and what it trains with; for Kubernetes.
        claim: a PersistentVolumeClaim that all nodes can write to; for Kubernetes.
    """

    store: Path
    overrides: Sequence[str] = ()
    port: int = 29500
    image: str = ""
    claim: str = ""


def render_launch(loaded: LoadedSpec, launcher: Launcher, launch: Launch) -> str:
    """Text for a shell, for ``sbatch`` or for ``kubectl create -f``.

    Raises:
        TunebuildError: Kubernetes without image or claim, or a claim that cannot be there.
    """
    spec, store = loaded.file.resolve(), launch.store.resolve()
    if launcher == "kubernetes":
        if not (launch.image and launch.claim):
            raise fail("launch", "a Kubernetes job needs an image and a claim", "give --image and --claim")
        if not _CLAIM.fullmatch(launch.claim):
            message = f"no PersistentVolumeClaim can be called '{launch.claim}'"
            raise fail("launch", message, "names have lower case letters, digits, '-' and '.'")
        spec, store = Path(_MOUNT, spec.name), Path(_MOUNT, "store")
    sets = [word for override in launch.overrides for word in ("--set", override)]
    tuning = loaded.spec.tuning
    environment = Environment(
        loader=FileSystemLoader(resources.path("templates", "launch")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - a shell's words and YAML; the filters quote
    )
    environment.filters.update(shell=shlex.join, json=json.dumps)
    return environment.get_template(_FILES[launcher]).render(
        name=f"train-{loaded.spec.name}"[:_LABEL].replace(".", "-").replace("_", "-").rstrip("-"),
        nodes=tuning.nodes,
        processes=tuning.processes,
        command=["tunebuild", "train", str(spec), "--store", str(store), *sets],
        store=str(store),
        port=launch.port,
        image=launch.image,
        claim=launch.claim,
        mount=_MOUNT,
    )
