"""The targets by name. A new one is a file beside these and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from tunebuild.deploy.compose import Compose
from tunebuild.deploy.document import COMMAND, render
from tunebuild.deploy.endpoint import Endpoint
from tunebuild.deploy.kserve import KServe
from tunebuild.deploy.kserve_llm import KServeLLM
from tunebuild.deploy.kubernetes import Kubernetes
from tunebuild.deploy.target import Choices, Manifest, Target

TARGETS: Mapping[str, Target] = {
    "compose": Compose(),
    "kubernetes": Kubernetes(),
    "kserve": KServe(),
    "kserve-llm": KServeLLM(),
}


def render_manifest(manifest: Manifest, endpoint: Endpoint, choices: Choices, file_name: str) -> str:
    """A manifest as a file, which begins with what it is and what it needs."""
    tag = f" {endpoint.tag}" if endpoint.tag else ""
    head = [f"{endpoint.repository}{tag}, written by tunebuild deploy. To apply it:"]
    head.append(f"{COMMAND}{manifest.apply.format(file_name)}")
    for one in manifest.needed:
        head.append(f"It needs {one}")
        head += [COMMAND + one.command] if one.command else []
    return render(manifest.documents, head)
