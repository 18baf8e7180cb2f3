"""Archives as byte streams, for runtimes: nothing is written on this side."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Iterator

from tunebuild.image.oci.archive import layout_files
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.stream import Counter, file_blocks
from tunebuild.image.oci.tar import END, entry_header
from tunebuild.store import Digest, Progress


def archive_stream(
    image: Image, progress: Progress, omitted: Collection[Digest] = frozenset()
) -> Iterator[bytes]:
    """The image's archive in blocks, without the blobs in ``omitted``."""
    files = [file for file in layout_files(image) if file.digest not in omitted]
    counter = Counter(sum(file.size for file in files), progress)
    for file in files:
        header = entry_header(file.path, size=file.size)
        yield from file_blocks(header, file.segments, counter, file.label)
    yield END


def files_in_stream(blocks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Regular files of a tar that arrives in blocks; the first part of each name is dropped."""
    with tarfile.open(fileobj=io.BufferedReader(_Blocks(blocks)), mode="r|") as tar:
        for member in tar:
            if member.isfile() and (stream := tar.extractfile(member)):
                yield member.name.partition("/")[2], stream.read()


class _Blocks(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = block
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
