"""What every target is given and gives back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunebuild.deploy.document import Document
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.errors import fail

_NAME = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_SPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_SPACE.pattern}(?:\.{_SPACE.pattern})*")
_HOST = re.compile(rf"{_SUBDOMAIN.pattern}|[0-9a-f:]*:[0-9a-f:.]*")
_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.:/_-]*")
_PLAIN = "write lower-case letters, digits and '-', with a letter first"
_LONGEST = 50
"""Names that are made of it, such as a pod's or KServe's host names, have 63 characters at most."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the image cannot know.

    Attributes:
        name: of the deployment, and what everything in it is called after.
        namespace: Kubernetes' namespace; empty for the one that ``kubectl`` is set to.
        replicas: pods.
        max_replicas: up to how many pods more are started while requests wait; 0 for none.
        prometheus: address of the Prometheus that has the queue's length; empty if an adapter hands it to
            Kubernetes.
        monitor: whether a ServiceMonitor tells Prometheus of the endpoint.
        api_keys: whether clients must have a key.
        host: host name that the endpoint is reached by; for Compose the address that its port is open on.
        pull_secret: name of the Secret with the registry's login.
        gpus: over how many GPUs a pod's model is split, by tensor parallelism.
    """

    name: str
    namespace: str = ""
    replicas: int = 1
    max_replicas: int = 0
    prometheus: str = ""
    monitor: bool = False
    api_keys: bool = True
    host: str = ""
    pull_secret: str = ""
    gpus: int = 1


@dataclass(frozen=True, slots=True)
class Needed:
    """Something that the user makes, since it is secret or belongs to the cluster.

    Attributes:
        kind: e.g. ``Secret``.
        name: what it must be called.
        what: what is in it, or what provides it.
        command: what makes it, if that is one command.
    """

    kind: str
    name: str
    what: str
    command: str = ""

    def __str__(self) -> str:
        return f"the {self.kind} {self.name}: {self.what}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file.

    Attributes:
        documents: in the order in which they are applied.
        needed: what they refer to and do not have.
        apply: the command that puts them to work; ``{}`` is the file.
    """

    documents: tuple[Document, ...]
    needed: tuple[Needed, ...]
    apply: str


class Target(Protocol):
    """Something that runs containers."""

    @property
    def file_name(self) -> str:
        """What its file is called."""

    def manifest(self, endpoint: Endpoint, choices: Choices) -> Manifest:
        """State what should run.

        Raises:
            TunebuildError: ``deploy``: a choice that it cannot make true.
        """


def name_of(text: str) -> str:
    """A model's name as Kubernetes spells names."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = name if name[:1].isalpha() else f"m-{name}"
    return name[:_LONGEST].rstrip("-")


def check_choices(choices: Choices) -> None:
    """Refuse what no cluster takes.

    Raises:
        TunebuildError: ``deploy``.
    """
    _check(choices.name, "--name", _NAME, _LONGEST, _PLAIN)
    if choices.namespace:
        _check(choices.namespace, "--namespace", _SPACE, 63, _PLAIN)
    if choices.pull_secret:
        _check(
            choices.pull_secret,
            "--pull-secret",
            _SUBDOMAIN,
            253,
            f"{_PLAIN}, or several of those with '.' between",
        )
    if choices.max_replicas and choices.max_replicas < choices.replicas:
        message = f"--max-replicas {choices.max_replicas} is less than --replicas {choices.replicas}"
        raise fail("deploy", message, "--replicas is how many there are without load")
    if choices.host:
        _check(choices.host, "--host", _HOST, 253, "write a host name or an address")
    if choices.prometheus:
        if not choices.max_replicas:
            raise fail("deploy", "--prometheus is for scaling", "give --max-replicas, too")
        _check(choices.prometheus, "--prometheus", _URL, 2000, "write http://HOST:PORT")


def _check(text: str, what: str, allowed: re.Pattern[str], longest: int, hint: str) -> None:
    if len(text) > longest or not allowed.fullmatch(text):
        raise fail("deploy", f"{what} cannot be '{text}'", f"{hint}; {longest} characters at most")


def refuse(choices: Choices, target: str, names: Sequence[str]) -> None:
    """Refuse choices that a target has no place for.

    Raises:
        TunebuildError: ``deploy``.
    """
    default = Choices(choices.name)
    for name in names:
        if getattr(choices, name) != getattr(default, name):
            option = "--" + name.replace("_", "-")
            raise fail("deploy", f"{option} means nothing to {target}", f"leave {option} out")
