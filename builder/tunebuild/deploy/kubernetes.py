"""Plain Kubernetes: one file of several documents, so that one diff shows a whole change of a deployment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunebuild.deploy.document import Document
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.pod import (
    LEAVE_NOTE,
    LINKS_NOTE,
    Names,
    disruption_budget,
    labels_of,
    memory_note,
    metadata_of,
    monitor,
    needed_of,
    network_policy,
    pod_spec,
    rollout_seconds,
    scale_query,
    scale_targets,
    selector_of,
    service_account,
)
from tunebuild.deploy.target import Choices, Manifest, Needed, refuse
from tunebuild.errors import fail

_NAMES = Names("server")
_METRICS_API = "v1beta1.custom.metrics.k8s.io"


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A :class:`~tunebuild.deploy.target.Target`."""

    file_name: str = "kubernetes.yaml"

    def manifest(self, endpoint: Endpoint, choices: Choices) -> Manifest:
        """Deployment and Service, and what makes them safe to run beside others."""
        refuse(choices, "the server of the image, which uses one GPU; --to kserve-llm takes it", ("gpus",))
        if ":" in choices.host or re.fullmatch(r"[0-9.]+", choices.host):
            message = f"an Ingress takes a host name, and --host is '{choices.host}'"
            raise fail("deploy", message, "write a name such as bot.example.com")
        selector = selector_of(endpoint, choices)
        documents = [
            Document(service_account(endpoint, choices)),
            Document(
                network_policy(endpoint, choices, selector, _NAMES.port),
                ("In: the port alone. Out: nothing, since the server opens no connection.",),
            ),
            Document(
                _deployment(endpoint, choices),
                (
                    memory_note(endpoint),
                    LEAVE_NOTE,
                    LINKS_NOTE,
                ),
            ),
            Document(_service(endpoint, choices)),
            Document(disruption_budget(endpoint, choices, selector)),
        ]
        needed = list(needed_of(choices))
        if choices.max_replicas:
            documents.append(_scaler(endpoint, choices))
            if not choices.prometheus:
                names = " and ".join(scale_targets(endpoint))
                how = f"an adapter, such as prometheus-adapter, that hands on {names}"
                needed.append(Needed("APIService", _METRICS_API, how))
        if choices.monitor:
            documents.append(
                Document(monitor(endpoint, choices, "ServiceMonitor", "endpoints", selector, _NAMES.port))
            )
        if choices.host:
            documents.append(Document(_ingress(endpoint, choices)))
            needed.append(Needed("Secret", _tls_secret(choices), f"the certificate of {choices.host}"))
        return Manifest(tuple(documents), tuple(needed), "kubectl apply -f {}")


def _deployment(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    annotations = {"annotations": dict(endpoint.labels)} if endpoint.labels else {}
    spread = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector_of(endpoint, choices)},
            }
        ]
    }
    several = max(choices.replicas, choices.max_replicas) > 1
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata_of(endpoint, choices),
        "spec": {
            # Where pods are counted by load, a number here would set them back each time it is applied.
            **({} if choices.max_replicas else {"replicas": choices.replicas}),
            "selector": {"matchLabels": selector_of(endpoint, choices)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": rollout_seconds(endpoint),
            "template": {
                "metadata": {"labels": labels_of(endpoint, choices), **annotations},
                "spec": {**pod_spec(endpoint, choices, _NAMES), **(spread if several else {})},
            },
        },
    }


def _service(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(endpoint, choices),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_of(endpoint, choices),
            "ports": [{"name": _NAMES.port, "port": 80, "targetPort": _NAMES.port, "protocol": "TCP"}],
        },
    }


def _scaler(endpoint: Endpoint, choices: Choices) -> Document:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": choices.name}
    if choices.prometheus:
        query, threshold = scale_query(endpoint, choices, choices.name)
        trigger = {"serverAddress": choices.prometheus, "query": query, "threshold": str(threshold)}
        spec: dict[str, Any] = {
            "scaleTargetRef": target,
            "minReplicaCount": choices.replicas,
            "maxReplicaCount": choices.max_replicas,
            "triggers": [{"type": "prometheus", "metadata": trigger}],
        }
        kind = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"}
        note = f"KEDA: one pod for each {threshold} answers that run or wait."
        return Document({**kind, "metadata": metadata_of(endpoint, choices), "spec": spec}, (note,))
    metrics = [
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": name},
                "target": {"type": "AverageValue", "averageValue": str(value)},
            },
        }
        for name, value in scale_targets(endpoint).items()
    ]
    spec = {
        "scaleTargetRef": target,
        "minReplicas": choices.replicas,
        "maxReplicas": choices.max_replicas,
        "metrics": metrics,
    }
    kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    return Document({**kind, "metadata": metadata_of(endpoint, choices), "spec": spec})


def _ingress(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    backend = {"service": {"name": choices.name, "port": {"name": _NAMES.port}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata_of(endpoint, choices),
        "spec": {
            "tls": [{"hosts": [choices.host], "secretName": _tls_secret(choices)}],
            "rules": [
                {
                    "host": choices.host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ],
        },
    }


def _tls_secret(choices: Choices) -> str:
    return f"{choices.name}-tls"
