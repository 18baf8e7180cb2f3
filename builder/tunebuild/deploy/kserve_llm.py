"""KServe's LLMInferenceService: its own vLLM and gateway over the model's folder, an image volume.

For models that one GPU does not hold, and for KServe's routing. The server of the image does not run, so
nothing compares prompts with those of the training when it starts; the chat template in the folder is one
that was compared when the image was built. Source: serving.kserve.io/v1alpha2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunebuild.deploy.document import Document
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.pod import keys_secret, labels_of, metadata_of, needed_of
from tunebuild.deploy.target import Choices, Manifest, Needed, refuse
from tunebuild.errors import fail

_KEY = "key"
_VOLUME_NOTE = "The model is mounted as an image volume: Kubernetes 1.33 or newer."
_RUNNABLE_NOTE = (
    "No image with the weights alone was published, so nodes pull the runnable one, server and packages "
    "included. With 'outputs: [image, weights]' in the spec, 'tunebuild push' adds it."
)


@dataclass(frozen=True, slots=True)
class KServeLLM:
    """A :class:`~tunebuild.deploy.target.Target`."""

    file_name: str = "kserve-llm.yaml"

    def manifest(self, endpoint: Endpoint, choices: Choices) -> Manifest:
        """An LLMInferenceService."""
        no_place = ("host", "max_replicas", "prometheus", "monitor")
        refuse(choices, "an LLMInferenceService, which has KServe's own gateway and scaling", no_place)
        if not endpoint.cuda:
            hint = "set serving.device: cuda and build, or use --to kserve"
            raise fail("deploy", "KServe's vLLM needs a GPU, and the spec serves on a CPU", hint)
        if endpoint.settings.adapter:
            hint = "merge it (merge.strategy: auto), or use --to kserve, which serves it"
            raise fail("deploy", "the adapter is not merged, and the model's folder is the base alone", hint)
        if not endpoint.chat_template:
            message = "the model's folder has no chat template that renders the prompts of the training"
            raise fail("deploy", message, "use --to kserve, whose server has its own renderer")
        notes = (_VOLUME_NOTE,) if endpoint.weights else (_VOLUME_NOTE, _RUNNABLE_NOTE)
        needed = tuple(_one_key(one, choices) for one in needed_of(choices))
        return Manifest((Document(_resource(endpoint, choices), notes),), needed, "kubectl apply -f {}")


def _one_key(needed: Needed, choices: Choices) -> Needed:
    """vLLM takes one key, from a variable."""
    if needed.name != keys_secret(choices):
        return needed
    command = needed.command.partition(" --from-file=")[0] + f" --from-file={_KEY}=api-key.txt"
    return Needed(needed.kind, needed.name, "the clients' API key, without a line break", command)


def _resource(endpoint: Endpoint, choices: Choices) -> dict[str, Any]:
    limits = endpoint.settings.limits
    arguments = f"--max-model-len={limits.context}"
    if limits.concurrency:
        arguments += f" --max-num-seqs={limits.concurrency}"
    variables: list[dict[str, Any]] = [{"name": "VLLM_ADDITIONAL_ARGS", "value": arguments}]
    if choices.api_keys:
        key = {"secretKeyRef": {"name": keys_secret(choices), "key": _KEY}}
        variables.append({"name": "VLLM_API_KEY", "valueFrom": key})
    gpus = {"nvidia.com/gpu": choices.gpus}
    pull = {"imagePullSecrets": [{"name": choices.pull_secret}]} if choices.pull_secret else {}
    annotations = {"annotations": dict(endpoint.labels)} if endpoint.labels else {}
    digest = endpoint.weights or endpoint.digest
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": {**metadata_of(endpoint, choices), **annotations},
        "spec": {
            "model": {
                "uri": f"oci+native://{endpoint.repository}@{digest}",
                "name": endpoint.settings.name,
            },
            "labels": labels_of(endpoint, choices),
            "replicas": choices.replicas,
            "parallelism": {"tensor": choices.gpus},
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
            "template": {
                **pull,
                "terminationGracePeriodSeconds": endpoint.end_seconds,
                "containers": [
                    {"name": "main", "env": variables, "resources": {"requests": gpus, "limits": gpus}}
                ],
            },
        },
    }
