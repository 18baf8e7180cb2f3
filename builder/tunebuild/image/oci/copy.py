"""Copies a file range, sharing blocks with the source where the file system can."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Callable
from typing import BinaryIO

from tunebuild.image.oci.layer import FileRange, read_segments
from tunebuild.image.oci.tar import ALIGNMENT

_FICLONERANGE = 0x4020940D  # from linux/fs.h: struct {s64 src_fd; u64 src_offset, src_length, dest_offset}
_WORTH_CLONING = 1 << 20


def copy_range(
    part: FileRange, sink: BinaryIO, saw: Callable[[bytes], None], count: Callable[[int], None]
) -> bool:
    """Append ``part`` to ``sink``.

    ``saw`` is given every byte that was read, ``count`` the number of bytes as they are done.

    Returns:
        Whether blocks were shared, in which case ``saw`` saw only the unshared rest.
    """
    shared = _clone(part, sink)
    if shared:
        count(shared)
    for block in read_segments([FileRange(part.path, part.offset + shared, part.size - shared)]):
        sink.write(block)
        saw(block)
        count(len(block))
    return shared > 0


def _clone(part: FileRange, sink: BinaryIO) -> int:
    """Share the whole blocks at the start of ``part``; how many bytes that were."""
    length = part.size - part.size % ALIGNMENT
    position = sink.tell()
    if length < _WORTH_CLONING or part.offset % ALIGNMENT or position % ALIGNMENT:
        return 0
    sink.flush()
    with part.path.open("rb") as source:
        request = struct.pack("=qQQQ", source.fileno(), part.offset, length, position)
        try:
            fcntl.ioctl(sink.fileno(), _FICLONERANGE, request)
        except OSError:
            return 0  # another file system, or one that cannot: copying still can
    sink.seek(position + length)
    return length
