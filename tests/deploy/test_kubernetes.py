"""Manifests for Kubernetes and KServe: valid by the published schemas, and nothing in them dangles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import tunebuild.image
from support.deployed import choices, endpoint, endpoints, settings
from tunebuild.deploy.target import Choices, check_choices
from tunebuild.deploy.targets import TARGETS, render_manifest
from tunebuild.errors import TunebuildError
from tunebuild.serve.contract import API_KEYS_FILE, READY, RUNNING, WAITING

_VERSIONS = ("1.34", "1.37")
# Fields of KServe's predictor beside those of a pod: ComponentExtensionSpec of serving.kserve.io/v1beta1.
_PREDICTOR = {"minReplicas", "maxReplicas", "autoScaling", "deploymentStrategy", "labels"}
_few = hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(target: str, of: Any, chosen: Choices) -> tuple[list[dict[str, Any]], set[tuple[str, str]]]:
    """Resources as they read back from the file, and what the user is told to make."""
    check_choices(chosen)
    manifest = TARGETS[target].manifest(of, chosen)
    text = render_manifest(manifest, of, chosen, "x.yaml")
    for one in manifest.needed:
        assert one.name in text.partition("\napiVersion")[0], "the file does not say that it needs it"
    return list(yaml.safe_load_all(text)), {(one.kind, one.name) for one in manifest.needed}


def core(resources: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Resources of Kubernetes itself; of KServe's, the pod that it makes."""
    for resource in resources:
        if resource["kind"] == "InferenceService":
            predictor = resource["spec"]["predictor"]
            pod = {key: value for key, value in predictor.items() if key not in _PREDICTOR}
            meta = {"name": "x", "labels": predictor["labels"]}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod}
        elif resource["apiVersion"].partition("/")[0] not in ("monitoring.coreos.com", "keda.sh"):
            yield resource


def by_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in resources if one["kind"] == kind]
    return found


def pod_of(resources: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The pod and its labels."""
    for resource in resources:
        if resource["kind"] == "Deployment":
            template = resource["spec"]["template"]
            return template["spec"], template["metadata"]["labels"]
        if resource["kind"] == "InferenceService":
            predictor = resource["spec"]["predictor"]
            name = resource["metadata"]["name"]
            return predictor, {**predictor["labels"], "serving.kserve.io/inferenceservice": name}
    raise AssertionError("no pod")


def keys(value: Any, name: str) -> Iterator[Any]:
    """Every value under a key, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from keys(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, name)


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
@_few
@given(data=st.data())
def test_resources_are_valid_and_name_only_what_exists(target, data):
    of = data.draw(endpoints())
    chosen = data.draw(choices(of, prometheus=True if target == "kserve" else None))
    resources, needed = written(target, of, chosen)
    for resource in core(resources):
        kubernetes_validate.validate(resource, _VERSIONS[-1], strict=True)

    pod, labels = pod_of(resources)
    (container,) = pod["containers"]
    secrets = {name for kind, name in needed if kind == "Secret"}
    assert set(keys(resources, "secretName")) <= secrets
    assert {one["name"] for found in keys(resources, "imagePullSecrets") for one in found} <= secrets
    accounts = [one["metadata"]["name"] for one in resources if one["kind"] == "ServiceAccount"]
    assert accounts == [pod["serviceAccountName"]]
    for selector in (*keys(resources, "selector"), *keys(resources, "podSelector")):
        found = selector.get("matchLabels", selector)
        assert found
        assert found.items() <= labels.items()
    (port,) = container["ports"]
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    ports = {*probes, *keys(resources, "targetPort")}
    ports |= {one["port"] for found in keys(resources, "ingress") for rule in found for one in rule["ports"]}
    assert ports == {port["name"]}
    assert port["containerPort"] == of.settings.port
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert {one["metadata"].get("namespace", "") for one in resources} == {chosen.namespace}
    for target_ref in keys(resources, "scaleTargetRef"):
        assert (target_ref["kind"], target_ref["name"]) in {
            (one["kind"], one["metadata"]["name"]) for one in resources
        }

    assert container["image"] == f"{of.repository}@{of.digest}"
    assert pod["terminationGracePeriodSeconds"] > of.settings.limits.drain_seconds
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (of.settings.device == "cuda")
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert (API_KEYS_FILE in variables) == chosen.api_keys
    if chosen.api_keys:
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert variables[API_KEYS_FILE].rpartition("/")[0] in mounts


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_pods_meet_the_restricted_security_standard(target):
    pod, _ = pod_of(written(target, endpoint(), Choices("bot"))[0])
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]  # or a Service called tunebuild would set TUNEBUILD_PORT
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "emptyDir", "secret"}


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_probes_ask_what_the_server_answers(target):
    (container,) = pod_of(written(target, endpoint(), Choices("bot"))[0])[0]["containers"]
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}
    startup = container["startupProbe"]
    check = endpoint().healthcheck
    assert startup["periodSeconds"] * startup["failureThreshold"] >= check.start_period
    # The image's own check, which imports nothing of ours, asks the same.
    probe = Path(tunebuild.image.__file__).with_name("entrypoint") / "probe.py"
    assert f"GET {READY} HTTP" in probe.read_text()


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_an_older_cluster_takes_them_too(target):
    chosen = Choices("bot", max_replicas=2, prometheus="http://p:9090", monitor=True, pull_secret="login")
    for resource in core(written(target, endpoint(settings(engine="vllm", device="cuda")), chosen)[0]):
        kubernetes_validate.validate(resource, _VERSIONS[0], strict=True)


def test_scaling_asks_for_metrics_that_the_server_has():
    pytest.importorskip("prometheus_client")
    from tunebuild.serve.metrics import Metrics

    scraped = Metrics(lambda: 3, lambda: 2, lambda: 1).render().decode()
    of, chosen = endpoint(), Choices("bot", max_replicas=4)
    scaler = by_kind(written("kubernetes", of, chosen)[0], "HorizontalPodAutoscaler")
    names = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
    assert names == [WAITING, RUNNING]
    assert all(f"\n{name} " in scraped for name in names)
    asked = Choices("bot", "models", max_replicas=4, prometheus="http://p:9090")
    trigger = by_kind(written("kubernetes", of, asked)[0], "ScaledObject")["spec"]["triggers"][0]
    pods = 'namespace="models",pod=~"bot-[a-z0-9]+-[a-z0-9]+"'
    query = f"sum(tunebuild_requests_running{{{pods}}}) + sum(tunebuild_requests_waiting{{{pods}}})"
    assert trigger["metadata"]["query"] == query
    predictor = by_kind(written("kserve", of, asked)[0], "InferenceService")["spec"]["predictor"]
    (external,) = [one["external"] for one in predictor["autoScaling"]["metrics"]]
    assert external["metric"]["query"] == query.replace("bot-", "bot-predictor-")  # KServe's Deployment
    # Its admission refuses a target without "value", whatever the schema allows.
    assert external["target"] == {"type": "Value", "value": trigger["metadata"]["threshold"]}
    deployment = by_kind(written("kubernetes", of, asked)[0], "Deployment")
    assert "replicas" not in deployment["spec"]


def test_another_digest_changes_one_line_and_equal_inputs_none():

    def text(of):
        return render_manifest(TARGETS["kubernetes"].manifest(of, Choices("b")), of, Choices("b"), "x")

    one, other = endpoint(), replace(endpoint(), digest="sha256:" + "f" * 64)
    assert text(one) == text(endpoint())
    changed = [
        pair
        for pair in zip(text(one).splitlines(), text(other).splitlines(), strict=True)
        if len({*pair}) > 1
    ]
    assert len(changed) == 1


def test_memory_follows_the_weights_and_the_limits():
    small = endpoint(settings(limits={"concurrency": 1}))
    large = endpoint(settings(limits={"concurrency": 64}))
    assert large.memory.host > small.memory.host
    assert small.memory.weights == 2 * 270_000_000  # stored in bfloat16, perhaps served in float32
    card = endpoint(settings(device="cuda", engine="vllm"))
    assert card.memory.weights == 270_000_000
    assert card.memory.card > card.memory.weights
    assert (
        card.memory.host == endpoint(settings(device="cuda", engine="vllm", limits={"queue": 1})).memory.host
    )


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_load_of_a_deployment_whose_name_begins_alike_is_not_counted(target):
    chosen = Choices("bot", max_replicas=4, prometheus="http://p:9090")
    text = str(written(target, endpoint(), chosen)[0])
    (pods,) = set(re.findall(r'pod=~"([^"]+)"', text))
    own = "bot-predictor" if target == "kserve" else "bot"
    assert re.fullmatch(pods, f"{own}-7d9f8c6b5-x2x4z")
    assert not re.fullmatch(pods, "bot-v2-7d9f8c6b5-x2x4z")
    assert not re.fullmatch(pods, "bot-v2-predictor-7d9f8c6b5-x2x4z")


def test_an_ingress_sends_its_host_to_the_service():
    resources, needed = written("kubernetes", endpoint(), Choices("bot", host="bot.example.com"))
    ingress = by_kind(resources, "Ingress")
    kubernetes_validate.validate(ingress, _VERSIONS[-1], strict=True)
    assert ("Secret", "bot-tls") in needed
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    service = by_kind(resources, "Service")
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]


@pytest.mark.parametrize(
    ("target", "chosen", "said"),
    [
        ("kubernetes", Choices("My Bot"), "--name cannot be 'My Bot'"),
        ("kubernetes", Choices("b" * 51), "50 characters at most"),
        ("kubernetes", Choices("bot", "a b"), "--namespace cannot be 'a b'"),
        ("kubernetes", Choices("bot", replicas=3, max_replicas=2), "less than --replicas 3"),
        ("kubernetes", Choices("bot", prometheus="http://p"), "give --max-replicas, too"),
        ("kubernetes", Choices("bot", max_replicas=2, prometheus="p:90"), "write http://HOST:PORT"),
        ("kubernetes", Choices("bot", pull_secret="A"), "--pull-secret cannot be 'A'"),
        ("kubernetes", Choices("bot", host="Not A Host"), "--host cannot be 'Not A Host'"),
        ("kubernetes", Choices("bot", host="10.0.0.1"), "an Ingress takes a host name"),
        ("kubernetes", Choices("bot", host="::1"), "an Ingress takes a host name"),
        ("kserve", Choices("bot", host="x.example.com"), "--host means nothing to KServe"),
        ("kserve", Choices("bot", max_replicas=2), "give its address: --prometheus URL"),
        ("compose", Choices("bot", replicas=2), "--replicas means nothing to Compose"),
        ("compose", Choices("bot", "space"), "--namespace means nothing to Compose"),
        ("compose", Choices("bot", host="bot.example.com"), "write an address of this machine"),
        ("compose", Choices("bot", host="no host"), "--host cannot be 'no host'"),
    ],
)
def test_impossible_choices_are_refused(target, chosen, said):
    with pytest.raises(TunebuildError) as error:
        written(target, endpoint(), chosen)
    assert said in str(error.value)


@pytest.mark.parametrize("weights", [None, "sha256:" + "e" * 64])
def test_an_llm_service_mounts_the_model_and_splits_it(weights):
    of = replace(endpoint(settings(device="cuda", engine="vllm")), weights=weights)
    (resource,), needed = written("kserve-llm", of, Choices("bot", replicas=2, gpus=4, pull_secret="login"))
    spec = resource["spec"]
    assert spec["model"]["uri"] == f"oci+native://{of.repository}@{weights or of.digest}"
    assert spec["parallelism"] == {"tensor": 4}
    (container,) = spec["template"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert container["env"][0]["value"] == "--max-model-len=2048 --max-num-seqs=16"
    names = {one["name"] for found in keys(resource, "imagePullSecrets") for one in found}
    names |= {one["name"] for one in keys(resource, "secretKeyRef")}
    assert names == {name for _, name in needed}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec["template"]}
    kubernetes_validate.validate(pod, _VERSIONS[-1], strict=True)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (endpoint(), "needs a GPU"),
        (endpoint(settings(device="cuda", adapter=True)), "the adapter is not merged"),
        (replace(endpoint(settings(device="cuda")), chat_template=False), "has no chat template"),
    ],
)
def test_what_another_server_could_not_serve_is_refused(of, said):
    with pytest.raises(TunebuildError, match=said):
        written("kserve-llm", of, Choices("bot"))
    assert written("kserve", of, Choices("bot"))


@pytest.mark.parametrize("target", ["compose", "kubernetes", "kserve"])
def test_the_image_s_server_is_not_split(target):
    with pytest.raises(TunebuildError, match="--gpus means nothing to the server of the image"):
        written(target, endpoint(), Choices("bot", gpus=2))
