"""Publishes to a registry: sends what is missing, several blobs at a time, and tags last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from tunebuild.image.oci.content import Blob, Content
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.release import Published, Release
from tunebuild.registry.client import INDEX_TYPE, Repository, referrers_tag
from tunebuild.registry.upload import Pieces, Source, Upload
from tunebuild.store import Progress
from tunebuild.store.digest import Digest, canonical_json

_PARALLEL = 4


@dataclass(frozen=True, slots=True)
class RegistryPublisher:
    """A :class:`Publisher` to one repository.

    Attributes:
        repository: where to.
        reference: the image's name; its tag names the runnable image.
        memory: repositories of that registry that blobs went to before.
        mounts: more repositories of the registry that may have blobs.
        parallel: uploads at a time.
    """

    repository: Repository
    reference: ImageReference
    memory: PushMemory
    mounts: tuple[str, ...] = ()
    parallel: int = _PARALLEL
    step: str = "push"
    _pieces: Pieces = field(default_factory=Pieces)

    def publish(self, release: Release, progress: Progress) -> Published:
        """Push blobs, then manifests by digest, then referrers, then tags.

        Raises:
            TunebuildError: what the registry, or the way to it, refuses.
        """
        started = time.monotonic()
        tag = self.reference.tag
        before = self.repository.manifest_digest(tag) if tag else None
        blobs = release.blobs()
        present_digests = self._present(blobs)
        missing = [blob for blob in blobs if blob.digest not in present_digests]
        counter = _Counter(sum(blob.size for blob in missing), progress)
        mounted = self._send(missing, counter)
        for content in release.contents:
            self._put(content)
        # The runnable image's comes last: who sees it finds everything else.
        for content in (*release.contents[1:], release.contents[0]):
            if tag and (name := content.tag(tag)):
                self.repository.put_manifest(name, content.manifest, content.media_type)
        self.memory.remember(self.repository.host, self.repository.name, [blob.digest for blob in blobs])
        counter.close()
        present = sum(blob.size for blob in blobs if blob.digest in present_digests)
        taken = sum(blob.size for blob in mounted)
        sizes = (counter.total - taken, present, taken)
        replaced = before if before != release.digest else None
        notes = [f"{self.reference}: {_summary(*sizes, time.monotonic() - started)}"]
        if replaced:
            notes.append(f"the tag {tag} stood for {replaced} before")
        notes += [f"{c.output}: {c.tag(tag)}@{c.digest}" for c in release.contents if c.output]
        name = f"{self.repository.host}/{self.repository.name}@{release.digest}"
        return Published(name, release.digest, tuple(notes), *sizes, replaced)

    def _present(self, blobs: Sequence[Blob]) -> set[Digest]:
        with ThreadPoolExecutor(self.parallel) as pool:
            there = pool.map(lambda blob: self.repository.has_blob(blob.digest), blobs)
            return {blob.digest for blob, found in zip(blobs, there, strict=True) if found}

    def _send(self, blobs: Sequence[Blob], counter: _Counter) -> list[Blob]:
        """Send all; those that were mounted instead."""
        mounted: list[Blob] = []

        def one(blob: Blob) -> None:
            sources = [*self.memory.repositories(self.repository.host, blob.digest), *self.mounts]
            sources = [name for name in dict.fromkeys(sources) if name != self.repository.name]
            source = Source(blob.digest, blob.size, blob.label, blob.read)
            if not Upload(self.repository, source, self._pieces, counter.saw(blob.label)).run(sources):
                counter.saw(blob.label)(blob.size)
                mounted.append(blob)

        # The longest first, or it would be alone at the end.
        queue = sorted(blobs, key=lambda blob: -blob.size)
        with ThreadPoolExecutor(self.parallel) as pool:
            running = [pool.submit(one, blob) for blob in queue]
            try:
                done, waiting = wait(running, return_when=FIRST_EXCEPTION)
                for future in waiting:
                    future.cancel()
                for future in done:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return mounted

    def _put(self, content: Content) -> None:
        reply = self.repository.put_manifest(content.digest, content.manifest, content.media_type)
        if content.subject and "oci-subject" not in reply.headers:
            self._refer(content, content.subject)

    def _refer(self, content: Content, subject: Digest) -> None:
        """List a referrer under the tag that stands in for the API that this registry lacks."""
        tag = referrers_tag(subject)
        found = self.repository.get_manifest(tag)
        listed: list[dict[str, Any]] = list(found.json().get("manifests") or []) if found else []
        if any(entry["digest"] == content.digest for entry in listed):
            return
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*listed, content.descriptor()]}
        self.repository.put_manifest(tag, canonical_json(index), INDEX_TYPE)


class _Counter:
    """Adds up what the threads send, and shows bytes and rate."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total = total
        self._progress = progress
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._lock = threading.Lock()

    def saw(self, label: str) -> Any:
        """What an upload tells how many bytes went."""

        def add(count: int) -> None:
            with self._lock:
                self._done += count
                now = time.monotonic()
                if now - self._shown >= 0.1 or self._done >= self.total:
                    self._shown = now
                    rate = self._done / max(now - self._start, 1e-3)
                    sizes = f"{self._done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB"
                    note = f"{sizes}, {rate / 1e6:,.1f} MB/s, {label}"
                    self._progress.step(min(self._done, self.total), self.total, note)

        return add

    def close(self) -> None:
        """Fill the bar."""
        if self.total:
            self._progress.step(self.total, self.total, "")


def _summary(sent: int, present: int, mounted: int, seconds: float) -> str:
    rate = sent / max(seconds, 1e-3)
    parts: Iterable[str] = (
        f"{sent / 1e6:,.1f} MB sent in {seconds:.1f} s ({rate / 1e6:,.1f} MB/s)",
        f"{present / 1e6:,.1f} MB were there",
        f"{mounted / 1e6:,.1f} MB mounted from other repositories",
    )
    return ", ".join(part for part, size in zip(parts, (1, present, mounted), strict=True) if size)
