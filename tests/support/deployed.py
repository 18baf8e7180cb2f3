"""Endpoints to deploy that no image was built for, and images that are only their settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.memory import estimate_memory
from tunebuild.deploy.target import Choices, name_of
from tunebuild.image.oci.manifest import Healthcheck
from tunebuild.serve.bundle import Bundle

DIGEST = "sha256:" + "0123456789abcdef" * 4


def settings(**changes: Any) -> Bundle:
    limits = {"context": 2048, "concurrency": 16, "queue": 64, "drain_seconds": 30} | changes.pop(
        "limits", {}
    )
    value = {
        "name": "support-bot",
        "prompt_digest": "sha256:p",
        "spec_digest": "sha256:s",
        "engine": "transformers",
        "device": "cpu",
        "dtype": "auto",
        "port": 8080,
        "defaults": {"max_tokens": 512, "temperature": 0.0, "top_p": 1.0},
        "limits": limits,
    }
    return Bundle.model_validate(value | changes)


def endpoint(bundle: Bundle | None = None, tag: str = "1.0") -> Endpoint:
    bundle = bundle or settings()
    config = {"num_attention_heads": 8, "hidden_size": 512, "num_hidden_layers": 4, "dtype": "bfloat16"}
    return Endpoint(
        repository="registry.example.com/team/bot",
        tag=tag,
        digest=DIGEST,
        settings=bundle,
        uid=65532,
        gid=65532,
        scratch="/dev/shm",
        platform=("linux", "amd64"),
        healthcheck=Healthcheck(("/usr/bin/python3", "-S", "-I", "/opt/tunebuild/app/probe.py")),
        stop_signal="SIGTERM",
        labels={"org.tunebuild.spec": "sha256:s"},
        size=900_000_000,
        memory=estimate_memory(bundle, 270_000_000, config),
    )


_NAMES = st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+){0,3}", fullmatch=True).filter(lambda n: len(n) <= 63)
_TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True) | st.sampled_from(
    ["1e3", "y", "0x10", "1.0", "no", "2026-11-28", "_a", "null"]
)


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    """Any that a spec can ask for."""
    device = draw(st.sampled_from(["cpu", "cuda"]))
    bundle = settings(
        name=draw(_NAMES | st.sampled_from(["y", "no", "1e3", "0", "tunebuild"])),
        engine=draw(st.sampled_from(["transformers", "vllm"])),
        device=device,
        dtype=draw(st.sampled_from(["auto", "bfloat16", "float32"])),
        port=draw(st.integers(1, 65535)),
        limits={
            "context": draw(st.integers(16, 131072)),
            "concurrency": draw(st.none() | st.integers(1, 256)),
            "queue": draw(st.integers(0, 1000)),
            "drain_seconds": draw(st.floats(0, 600)),
        },
    )
    return endpoint(bundle, draw(_TAGS))


@st.composite
def choices(draw: st.DrawFn, of: Endpoint, *, prometheus: bool | None = None) -> Choices:
    """Any that the command takes for Kubernetes."""
    replicas = draw(st.integers(1, 5))
    most = draw(st.just(0) | st.integers(replicas, 9))
    asks = draw(st.booleans()) if prometheus is None else prometheus
    return Choices(
        name=name_of(of.settings.name),
        namespace=draw(st.sampled_from(["", "models", "y"])),
        replicas=replicas,
        max_replicas=most,
        prometheus="http://prometheus.monitoring:9090" if most and asks else "",
        monitor=draw(st.booleans()),
        api_keys=draw(st.booleans()),
        pull_secret=draw(st.sampled_from(["", "registry-login"])),
    )


def write_settings(bundle: Path, **changes: Any) -> None:
    """Give a synthetic image's bundle settings that a server would take."""
    (bundle / "bundle.json").write_text(json.dumps(settings(**changes).model_dump(mode="json")))
