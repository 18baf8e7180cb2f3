"""KServe: an InferenceService whose container is the image itself, so the prompt contract holds there, too.

In standard deployment mode (KServe 0.16): Knative takes neither a grace period nor this security context.
KServe makes the Deployment and the Service, and finds pods by a label of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunebuild.deploy.document import Document
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.pod import (
    LEAVE_NOTE,
    Names,
    disruption_budget,
    labels_of,
    memory_note,
    metadata_of,
    monitor,
    needed_of,
    network_policy,
    pod_spec,
    scale_query,
    service_account,
)
from tunebuild.deploy.target import Choices, Manifest, refuse
from tunebuild.errors import fail

_NAMES = Names("kserve-container", "http1")  # both are KServe's
_POD_LABEL = "serving.kserve.io/inferenceservice"


@dataclass(frozen=True, slots=True)
class KServe:
    """A :class:`~tunebuild.deploy.target.Target`."""

    file_name: str = "kserve.yaml"

    def manifest(self, endpoint: Endpoint, choices: Choices) -> Manifest:
        """An InferenceService and what it does not make itself."""
        refuse(choices, "KServe, which has its own gateway", ("host",))
        refuse(choices, "the server of the image, which uses one GPU; --to kserve-llm takes it", ("gpus",))
        if choices.max_replicas and not choices.prometheus:
            message = "KServe counts waiting requests through KEDA, which asks Prometheus"
            raise fail("deploy", message, "give its address: --prometheus URL")
        selector = {_POD_LABEL: choices.name}
        documents = [
            Document(service_account(endpoint, choices)),
            Document(
                network_policy(endpoint, choices, selector, _NAMES.port),
                ("In: the port alone. Out: nothing, since the server opens no connection.",),
            ),
            Document(
                _inference_service(endpoint, choices),
                (
                    memory_note(endpoint),
                    LEAVE_NOTE,
                ),
            ),
            Document(disruption_budget(endpoint, choices, selector)),
        ]
        if choices.monitor:
            resource = monitor(endpoint, choices, "PodMonitor", "podMetricsEndpoints", selector, _NAMES.port)
            documents.append(Document(resource))
        return Manifest(tuple(documents), needed_of(choices), "kubectl apply -f {}")


def _inference_service(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    annotations = {"serving.kserve.io/deploymentMode": "Standard", **endpoint.labels}
    scaling: dict[str, Any] = {}
    if choices.max_replicas:
        annotations["serving.kserve.io/autoscalerClass"] = "keda"
        query, threshold = scale_query(endpoint, choices, f"{choices.name}-predictor")
        metric = {"backend": "prometheus", "serverAddress": choices.prometheus, "query": query}
        # KServe takes no other type here, and hands the value to KEDA as the threshold, which is one pod's.
        external = {"metric": metric, "target": {"type": "Value", "value": str(threshold)}}
        scaling = {"autoScaling": {"metrics": [{"type": "External", "external": external}]}}
    metadata = metadata_of(endpoint, choices)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            "predictor": {
                "minReplicas": choices.replicas,
                "maxReplicas": choices.max_replicas or choices.replicas,
                **scaling,
                "deploymentStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "labels": labels_of(endpoint, choices),
                **pod_spec(endpoint, choices, _NAMES),
            }
        },
    }
