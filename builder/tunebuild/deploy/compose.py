"""Compose: one service on one machine, with Docker or Podman."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from tunebuild.deploy.document import Document
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.target import Choices, Manifest, Needed, refuse
from tunebuild.errors import fail
from tunebuild.serve.contract import API_KEYS_FILE, LOG

_KEYS = "api-keys"
_KEYS_FILE = "./api-keys.txt"
_SPARE_SECONDS = 5
_TMP = "/tmp"  # noqa: S108
_TMP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Compose:
    """A :class:`~tunebuild.deploy.target.Target`."""

    file_name: str = "compose.yaml"

    def manifest(self, endpoint: Endpoint, choices: Choices) -> Manifest:
        """One endpoint."""
        no_place = ("namespace", "replicas", "max_replicas", "prometheus", "monitor", "pull_secret")
        refuse(choices, "Compose, which runs one container on one machine", no_place)
        refuse(choices, "the server of the image, which uses one GPU", ("gpus",))
        _check_address(_address(choices))
        value: dict[str, Any] = {"services": {choices.name: _service(endpoint, choices)}}
        needed: tuple[Needed, ...] = ()
        if choices.api_keys:
            value["secrets"] = {_KEYS: {"file": _KEYS_FILE}}
            what = f"the clients' API keys, one a line; readable for user {endpoint.uid}"
            needed = (Needed("file", _KEYS_FILE, what, _owned(endpoint)),)
        note = (
            f"The memory limit is an estimate: measure under load and adjust. The port is open on "
            f"{_address(choices)} only; --host opens it elsewhere."
        )
        return Manifest((Document(value, (note,)),), needed, "docker compose -f {} up -d")


def _service(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    check, port = endpoint.healthcheck, endpoint.settings.port
    variables = {LOG: "json"}
    if choices.api_keys:
        variables[API_KEYS_FILE] = f"/run/secrets/{_KEYS}"
    found: dict[str, Any] = {
        "image": endpoint.image,
        "platform": "/".join(endpoint.platform),
        "user": f"{endpoint.uid}:{endpoint.gid}",
        "read_only": True,
        "tmpfs": _tmpfs(endpoint),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": endpoint.memory.host,
        "ports": [f"{_bracketed(_address(choices))}:{port}:{port}"],
        "environment": variables,
        "healthcheck": {
            "test": ["CMD", *check.command],
            "interval": f"{check.interval}s",
            "timeout": f"{check.timeout}s",
            "start_period": f"{check.start_period}s",
            "retries": check.retries,
        },
        "stop_signal": endpoint.stop_signal,
        "stop_grace_period": f"{endpoint.end_seconds + _SPARE_SECONDS}s",
        "restart": "unless-stopped",
    }
    if choices.api_keys:
        found["secrets"] = [{"source": _KEYS, "target": _KEYS}]
    if endpoint.cuda:
        device = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        found["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return found


def _owned(endpoint: Endpoint) -> str:
    return f"chown {endpoint.uid} {_KEYS_FILE} && chmod 400 {_KEYS_FILE}"


def _tmpfs(endpoint: Endpoint) -> list[str]:
    # vLLM loads kernels from where it compiled them, which a tmpfs of Docker's does not allow by itself.
    vllm = endpoint.settings.engine == "vllm"
    run = "exec," if vllm else ""
    found = [f"{endpoint.scratch}:{run}mode=1777,size={endpoint.memory.scratch}"]
    return [*found, f"{_TMP}:mode=1777,size={_TMP_BYTES}"] if vllm else found


def _address(choices: Choices) -> str:
    return choices.host or "127.0.0.1"


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        message = f"Compose opens a port on an address, and --host is '{text}'"
        raise fail("deploy", message, "write an address of this machine, such as 0.0.0.0") from None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
