"""Publishes and shows what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunebuild.publish.release import Published, Publisher, Release
    from tunebuild.store import Progress


def publish(
    release: Release, publishers: Iterable[Publisher], reporter: Callable[[str], Progress]
) -> list[Published]:
    """Publish a release by each, in turn."""
    done = []
    for publisher in publishers:
        progress = reporter(publisher.step)
        done.append(publisher.publish(release, progress))
        for note in done[-1].notes:
            progress.say(note)
    return done
