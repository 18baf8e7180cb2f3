"""Builds the planned image through a Docker runtime, from the rendered Dockerfile.

The context is streamed: the runtime gets the weights straight from where they are, so the client's disk
never holds them a second time. The image's id is the runtime's own, since it writes its clock into it.
"""

from __future__ import annotations

import re
from typing import Any

from tunebuild.containers.docker import connect, short_error
from tunebuild.errors import fail
from tunebuild.image.context import build_context, context_stream
from tunebuild.image.plan import ImagePlan
from tunebuild.store import Digest, Progress, Silent

_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")


def build_with_docker(plan: ImagePlan, progress: Progress | None = None) -> Digest:
    """Build and tag the image in the runtime; its id.

    Raises:
        TunebuildError: ``no-runtime`` or ``docker-build-failed``, with the runtime's message.
    """
    import docker

    progress = progress or Silent()
    client = connect()
    try:
        answers = client.api.build(
            fileobj=context_stream(build_context(plan), progress),
            custom_context=True,
            tag=str(plan.reference),
            decode=True,
            rm=True,
            forcerm=True,
        )
        return _follow(answers, progress)
    except docker.errors.DockerException as error:
        raise fail("docker-build-failed", f"docker did not build: {short_error(error)}") from error


def _follow(answers: Any, progress: Progress) -> Digest:
    # Failures arrive inside the stream, after the status line has said that all is well.
    built: Digest | None = None
    for answer in answers:
        if "error" in answer:
            raise fail("docker-build-failed", f"docker did not build: {answer['error'].strip()}")
        if step := _STEP.match(answer.get("stream", "")):
            progress.step(int(step[1]), int(step[2]), step[3].split(" ")[0])
        built = answer.get("aux", {}).get("ID", built)
    if built is None:
        raise fail("docker-build-failed", "docker ended the build without naming an image", "see its log")
    return Digest(built)
