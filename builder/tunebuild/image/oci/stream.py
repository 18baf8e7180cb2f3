"""What is sent or written as a tar, block by block, and how much of it is through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunebuild.image.oci.layer import Segment, read_segments, size_of
from tunebuild.image.oci.tar import padding
from tunebuild.store import Progress


@dataclass(slots=True)
class Counter:
    """Shows bytes that are through.

    Attributes:
        total: all of them.
        progress: where.
        done: so far.
    """

    total: int
    progress: Progress
    done: int = 0

    def add(self, count: int, label: str) -> None:
        """More bytes are through, of what ``label`` says."""
        self.done = min(self.total, self.done + count)
        self.progress.step(self.done, self.total, label)


def file_blocks(header: bytes, segments: Iterable[Segment], counter: Counter, label: str) -> Iterator[bytes]:
    """A file of a tar in blocks: its header, its content and the padding after it."""
    segments = tuple(segments)
    yield header
    for block in read_segments(segments):
        yield block
        counter.add(len(block), label)
    yield padding(sum(size_of(segment) for segment in segments))
