"""Base models in registries: ``oci://`` and the name of an image with ``/models``, or of a CNCF ModelPack.

The digest of its manifest is to such a model what a commit is to one on the hub.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.lock.spec_lock import RepositoryLock
from tunebuild.registry import Options, Registries, Repository
from tunebuild.sources.hub import MODEL_FILES
from tunebuild.spec.model import OCI
from tunebuild.store.digest import Digest, digest_file

_REFERENCE = re.compile(
    r"(?P<host>[\w.-]+(?::\d+)?)/(?P<name>[a-z0-9._/-]+?)(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|localhost)(:\d+)?")
_FOLDER = "models/"
_FILE = "org.cncf.model.filepath"
_OURS = "tunebuild: "
_PATH = "model.base"


@dataclass(frozen=True, slots=True)
class OciModel:
    """A model in a registry, as a spec names it: ``oci://HOST/NAME:TAG`` or ``oci://HOST/NAME@DIGEST``."""

    base: str

    def lock(self, locked: RepositoryLock | None, cache: Path) -> RepositoryLock:
        """What a lock says of it: the digest that a tag stands for, and its files, which are fetched.

        Raises:
            TunebuildError: the registry refuses or cannot be reached, or has no such model.
        """
        if locked and locked.base == self.base:
            return locked
        directory, digest = self._fetched(self._pinned or self._resolved(), cache)
        files = {file.name: digest_file(file) for file in sorted(directory.iterdir())}
        return RepositoryLock(base=self.base, commit=digest, files=files)

    def fetch(self, locked: RepositoryLock | None, cache: Path, digest: Callable[[Path], Digest]) -> Path:
        """The directory of its files, fetched once.

        Raises:
            TunebuildError: it is not pinned by digest, the registry refuses, or a file is not what the lock
                names.
        """
        kept = locked if locked and locked.base == self.base else None
        pinned = self._pinned or (Digest(kept.commit) if kept and kept.commit else None)
        if pinned is None:
            hint = (
                "run 'tunebuild lock', which finds the digest that the tag stands for, or write @sha256:..."
            )
            raise fail("no-commit", f"'{self.base}' is not pinned to a digest", hint, path=_PATH)
        directory, _ = self._fetched(pinned, cache)
        for name, expected in kept.files.items() if kept else ():
            file = directory / name
            if not file.is_file() or digest(file) != expected:
                hint = f"remove {directory}, and build again"
                raise fail("lock-mismatch", f"{file} is not what the lock names", hint, path=_PATH)
        return directory

    @property
    def _parts(self) -> re.Match[str]:
        match = _REFERENCE.fullmatch(self.base.removeprefix(OCI))
        assert match, "a rule of the spec refuses anything else"
        return match

    @property
    def _pinned(self) -> Digest | None:
        return Digest(self._parts["digest"]) if self._parts["digest"] else None

    @property
    def _repository(self) -> Repository:
        host = self._parts["host"]
        # As Docker does: on this machine's own interface nobody listens in, and digests are checked anyway.
        options = Options.of_machine(plain_http=_LOOPBACK.fullmatch(host) is not None)
        return Registries(options).repository(host, self._parts["name"])

    def _resolved(self) -> Digest:
        found = self._repository.get_manifest(self._parts["tag"] or "latest")
        if found is None:
            raise self._absent()
        return found.digest

    def _absent(self) -> TunebuildError:
        return fail("no-model", f"there is no {self.base}", "check the name, and your login", path=_PATH)

    def _fetched(self, pinned: Digest, cache: Path) -> tuple[Path, Digest]:
        target = cache / "oci" / pinned.removeprefix("sha256:")
        if target.is_dir():
            return target, pinned
        repository = self._repository
        found = repository.get_manifest(pinned)
        if found is None:
            raise self._absent()
        manifest = found.json()
        if "layers" not in manifest:
            hint = "name the manifest of one platform by its digest"
            raise fail("no-model", f"{self.base} is an index of several images", hint, path=_PATH)
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as work:
            partial = Path(work) / "model"
            partial.mkdir()
            for layer in _wanted_layers(repository, manifest):
                blob = Path(work) / "blob"
                repository.download(Digest(layer["digest"]), layer["size"], blob)
                _take(layer, blob, partial)
            if not (partial / "config.json").is_file():
                hint = "an image needs /models with config.json and safetensors; a ModelPack the same files"
                raise fail("no-model", f"{self.base} holds no model", hint, path=_PATH)
            if not target.is_dir():
                partial.rename(target)
        return target, pinned


def _wanted_layers(repository: Repository, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Layers that may hold the model; of an image of ours, the history tells which do not."""
    layers: list[dict[str, Any]] = manifest["layers"]
    if manifest.get("artifactType"):
        yield from (layer for layer in layers if layer.get("annotations", {}).get(_FILE))
        return
    config = json.loads(repository.blob(Digest(manifest["config"]["digest"])))
    steps = [s.get("created_by", "") for s in config.get("history", ()) if not s.get("empty_layer")]
    if len(steps) != len(layers):
        steps = [""] * len(layers)
    for layer, step in zip(layers, steps, strict=True):
        if not step.startswith(_OURS) or step.endswith(".safetensors") or "model files" in step:
            yield layer


def _take(layer: dict[str, Any], blob: Path, target: Path) -> None:
    """Take a layer's model files; other paths, links and devices of a stranger's tar are passed over."""
    if name := layer.get("annotations", {}).get(_FILE):
        if _is_wanted(name):
            shutil.move(blob, target / name)
        return
    try:
        with tarfile.open(blob) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                inside = name.removeprefix(_FOLDER)
                if member.isfile() and inside != name and _is_wanted(inside):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    with (target / inside).open("wb") as sink:
                        shutil.copyfileobj(stream, sink, 1 << 20)
    except tarfile.TarError as error:
        hint = "layers may be uncompressed or gzip; is it an image?"
        raise fail(
            "no-model", f"cannot read the layer {layer['digest']}: {error}", hint, path=_PATH
        ) from error


def _is_wanted(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in MODEL_FILES)
