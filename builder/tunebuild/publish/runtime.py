"""Publishes to a container runtime on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.release import Published, Release
from tunebuild.store import Progress
from tunebuild.store.digest import Digest


@dataclass(frozen=True, slots=True)
class RuntimePublisher:
    """A :class:`Publisher` to Docker or Podman, which take the runnable image alone.

    Attributes:
        runtime: where to.
        reference: the image's name.
        step: what the progress is called.
    """

    runtime: ContainerRuntime
    reference: ImageReference
    step: str = "load"

    def publish(self, release: Release, progress: Progress) -> Published:
        """Load the image. Raises as :meth:`ContainerRuntime.load`."""
        report = self.runtime.load(release.image(self.reference), progress)
        name = self.reference.full_name
        sizes = f"{report.sent / 1e6:,.1f} of {report.total / 1e6:,.1f} MB sent to {self.runtime.name}"
        notes = [f"{name}: {sizes}"]
        if report.replaced:
            notes.append(_replaced(name, report.replaced))
        return Published(
            name,
            report.image_id,
            tuple(notes),
            sent=report.sent,
            present=report.total - report.sent,
            replaced=report.replaced,
        )


def _replaced(name: str, old: Digest) -> str:
    """A name that stood for another image is taken from it; that one is kept, without the name."""
    return f"{name} stood for {old[:19]} before; that image is still there by its ID"
