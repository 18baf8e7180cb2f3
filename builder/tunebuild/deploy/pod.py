"""The pod, which is the same for Kubernetes and KServe but for names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.memory import MIB
from tunebuild.deploy.target import Choices, Needed
from tunebuild.serve.contract import API_KEYS_FILE, LIVE, LOG, METRICS, READY, RUNNING, WAITING

#: Seconds between the decision to end a pod and SIGTERM, in which the cluster stops sending requests to it.
LEAVE_SECONDS = 5
LEAVE_NOTE = (
    f"A pod that leaves gets no new requests for {LEAVE_SECONDS} s before it is told to drain; the grace "
    "period covers the drain."
)
LINKS_NOTE = "Service links are off: a Service called tunebuild would set TUNEBUILD_PORT to a URL."
_SPARE_SECONDS = 5  # of the grace period
_KEYS_FOLDER = "/etc/tunebuild/api-keys"
_KEYS_FILE = "keys"
_START_PERIOD = 2  # seconds between two looks at whether the port is open
_SLOW_LINK = 20_000_000  # bytes a second at which an image may come before a rollout counts as failed
_BUSY = 0.8  # of the places in the batch
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Names:
    """What a target calls the container and its port."""

    container: str
    port: str = "http"


def labels_of(endpoint: Endpoint, choices: Choices) -> dict[str, str]:
    """Labels of every resource."""
    version = {"app.kubernetes.io/version": endpoint.tag} if _LABEL.fullmatch(endpoint.tag) else {}
    return {**selector_of(endpoint, choices), **version, "app.kubernetes.io/managed-by": "tunebuild"}


def selector_of(endpoint: Endpoint, choices: Choices) -> dict[str, str]:
    """Labels by which pods are found; a new version does not change them, which Kubernetes would refuse."""
    return {"app.kubernetes.io/name": endpoint.settings.name, "app.kubernetes.io/instance": choices.name}


def metadata_of(endpoint: Endpoint, choices: Choices, name: str = "") -> dict[str, Any]:
    """``metadata`` of a resource."""
    namespace = {"namespace": choices.namespace} if choices.namespace else {}
    return {"name": name or choices.name, **namespace, "labels": labels_of(endpoint, choices)}


def keys_secret(choices: Choices) -> str:
    """Name of the Secret with the API keys."""
    return f"{choices.name}-api-keys"


def needed_of(choices: Choices) -> tuple[Needed, ...]:
    """Secrets that a pod refers to."""
    space = f" --namespace {choices.namespace}" if choices.namespace else ""
    found = []
    if choices.api_keys:
        name = keys_secret(choices)
        command = f"kubectl create secret generic {name}{space} --from-file={_KEYS_FILE}=api-keys.txt"
        found.append(Needed("Secret", name, "the clients' API keys, one a line", command))
    if choices.pull_secret:
        command = f"kubectl create secret docker-registry {choices.pull_secret}{space} --docker-server=..."
        found.append(Needed("Secret", choices.pull_secret, "the registry's login", command))
    return tuple(found)


def service_account(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    """An account without rights, whose token no pod gets."""
    pull = {"imagePullSecrets": [{"name": choices.pull_secret}]} if choices.pull_secret else {}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata_of(endpoint, choices),
        "automountServiceAccountToken": False,
        **pull,
    }


def network_policy(
    endpoint: Endpoint, choices: Choices, selector: dict[str, str], port: int | str
) -> dict[str, Any]:
    """In: the port alone. Out: nothing, since the server opens no connection."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(endpoint, choices),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": port}]}],
            "egress": [],
        },
    }


def disruption_budget(endpoint: Endpoint, choices: Choices, selector: dict[str, str]) -> dict[str, Any]:
    """One pod at a time; with a single one, a node can still be drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata_of(endpoint, choices),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}},
    }


def pod_spec(endpoint: Endpoint, choices: Choices, names: Names) -> dict[str, Any]:
    """A PodSpec under the restricted pod security standard."""
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "serviceAccountName": choices.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE_SECONDS + endpoint.end_seconds + _SPARE_SECONDS,
        "nodeSelector": dict(
            zip(("kubernetes.io/os", "kubernetes.io/arch"), endpoint.platform, strict=True),
        ),
        **({"tolerations": tolerations} if endpoint.cuda else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": endpoint.uid,
            "runAsGroup": endpoint.gid,
            "fsGroup": endpoint.gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(endpoint, choices, names)],
        "volumes": [volume for volume, _ in _volumes(endpoint, choices)],
    }


def _container(endpoint: Endpoint, choices: Choices, names: Names) -> dict[str, Any]:
    variables = {LOG: "json"}
    if choices.api_keys:
        variables[API_KEYS_FILE] = f"{_KEYS_FOLDER}/{_KEYS_FILE}"
    check = endpoint.healthcheck
    memory = f"{endpoint.memory.host // MIB}Mi"
    gpu = {"nvidia.com/gpu": 1} if endpoint.cuda else {}
    return {
        "name": names.container,
        "image": endpoint.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": names.port, "containerPort": endpoint.settings.port, "protocol": "TCP"}],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": {"requests": {"cpu": "2", "memory": memory, **gpu}, "limits": {"memory": memory, **gpu}},
        "startupProbe": _probe(
            LIVE, names, _START_PERIOD, check.timeout, math.ceil(check.start_period / _START_PERIOD)
        ),
        "readinessProbe": _probe(READY, names, check.interval // 2, check.timeout, 2),
        "livenessProbe": _probe(LIVE, names, check.interval, check.timeout, check.retries),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [mount for _, mount in _volumes(endpoint, choices)],
    }


def _probe(path: str, names: Names, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _volumes(endpoint: Endpoint, choices: Choices) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Volumes with where they are mounted."""
    size = f"{endpoint.memory.scratch // MIB}Mi"
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": size}},
            {"name": "scratch", "mountPath": endpoint.scratch},
        )
    ]
    if endpoint.settings.engine == "vllm":  # and what it is made of, which may not ask for TMPDIR
        tmp = {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}}
        found.append((tmp, {"name": "tmp", "mountPath": "/tmp"}))  # noqa: S108
    if choices.api_keys:
        # As a folder: a file that is mounted alone would stay as it was when the Secret changes.
        secret = {"secretName": keys_secret(choices), "defaultMode": 0o440}
        found.append(
            (
                {"name": "api-keys", "secret": secret},
                {"name": "api-keys", "mountPath": _KEYS_FOLDER, "readOnly": True},
            )
        )
    return found


def rollout_seconds(endpoint: Endpoint) -> int:
    """After how long without progress a rollout has failed: an image that comes slowly, and the start."""
    return max(600, math.ceil((endpoint.size / _SLOW_LINK + endpoint.healthcheck.start_period) / 60) * 60)


def scale_targets(endpoint: Endpoint) -> dict[str, int]:
    """Metrics that more pods are started by, and what one pod should have of each."""
    limits = endpoint.settings.limits
    busy = max(1, math.floor(_BUSY * (limits.concurrency or 8)))
    return {WAITING: max(1, limits.queue // 4), RUNNING: busy}


def scale_query(endpoint: Endpoint, choices: Choices, deployment: str) -> tuple[str, int]:
    """What Prometheus is asked for all pods of a Deployment, and how much of it one pod should have."""
    space = f'namespace="{choices.namespace}",' if choices.namespace else ""
    # A ReplicaSet's hash and a pod's suffix, and nothing between: not the pods of NAME-v2.
    pods = f'pod=~"{deployment}-[a-z0-9]+-[a-z0-9]+"'
    sums = (f"sum({name}{{{space}{pods}}})" for name in (RUNNING, WAITING))
    return " + ".join(sums), scale_targets(endpoint)[RUNNING]


def monitor(
    endpoint: Endpoint, choices: Choices, kind: str, endpoints: str, selector: dict[str, str], port: str
) -> dict[str, Any]:
    """A ServiceMonitor or a PodMonitor of the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": metadata_of(endpoint, choices),
        "spec": {
            "selector": {"matchLabels": selector},
            endpoints: [{"port": port, "path": METRICS, "interval": "15s"}],
        },
    }


def memory_note(endpoint: Endpoint) -> str:
    """Where the figures of ``resources`` come from."""
    memory, limits = endpoint.memory, endpoint.settings.limits
    parts = f"weights {_size(memory.weights)}"
    answers = f"{limits.concurrency} answers" if (limits.concurrency or 1) > 1 else "an answer"
    rows = f"{answers} of {limits.context} tokens {_size(memory.keys_values)}"
    if memory.on_card:
        return (
            "Memory and CPU are estimates for the server's process; measure under load and adjust. On the "
            f"GPU: {parts}, {rows} at most; a card of {_size(memory.card)} or less is too small."
        )
    return (
        f"Memory is an estimate: {parts}, {rows}, server {_size(memory.process)}, temporary files "
        f"{_size(memory.scratch)}, and a fifth more. Measure under load and adjust. CPU is a guess; answers "
        "are as fast as the cores that the pod finds, so it has no limit."
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"
