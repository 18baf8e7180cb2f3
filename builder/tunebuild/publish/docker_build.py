"""Publishes to Docker by having it build the planned image itself, from the rendered Dockerfile."""

from __future__ import annotations

from dataclasses import dataclass

from tunebuild.containers.docker_build import build_with_docker
from tunebuild.image.plan import ImagePlan
from tunebuild.publish.release import Published, Release
from tunebuild.store import Progress


@dataclass(frozen=True, slots=True)
class DockerBuildPublisher:
    """A :class:`Publisher` whose image is Docker's own, with an ID that Docker gives it.

    Attributes:
        plan: what the release's image was made from.
        step: what the progress is called.
    """

    plan: ImagePlan
    step: str = "docker"

    def publish(self, release: Release, progress: Progress) -> Published:
        """Build and tag. The release's bytes are not sent. Raises as :func:`build_with_docker`."""
        return Published(self.plan.reference.full_name, build_with_docker(self.plan, progress))
