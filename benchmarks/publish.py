"""What publishing costs: assembly against reading and hashing once, an edit, and pushes to a registry.

Needs docker-registry. ``python benchmarks/publish.py [--megabytes 4000]``; every figure, and the baseline, is
taken in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.registry import FaultyProxy, docker_registry
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Published, Release
from tunebuild.registry import Options, Registries
from tunebuild.store import Silent

_SHARD = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=4000, help="size of the weights")
    megabytes = parser.parse_args().megabytes
    with TemporaryDirectory(prefix="tunebuild-") as name, docker_registry(Path(name) / "registry") as host:
        root, proxy = Path(name), FaultyProxy(host)
        _write(root / "bundle", megabytes)
        _show("read and hash once", *_timed(lambda: _hash(root / "bundle")))
        inputs = ImageInputs(ImageReference.parse("bench/model:1"), root / "bundle", ())
        image, seconds = _timed(lambda: assemble(plan_image(inputs)))
        _show("learn the layers' digests", image, seconds)
        _show("write the archive", *_timed(lambda: write_archive(image, root / "image.tar")))
        _show("push", *_timed(lambda: _push(proxy.host, image, root)))
        _show("push again", *_timed(lambda: _push(proxy.host, image, root)))
        (root / "bundle" / "prompt" / "prompt.json").write_text('{"edited": true}')
        # As in a build, where the digests of weights are known, only the last layer is hashed.
        edited = assemble(plan_image(inputs))
        before = _written()
        _show("write the archive after an edit", *_timed(lambda: write_archive(edited, root / "image.tar")))
        print(f"{'':32} {(_written() - before) / 1e6:10.3f} MB written")
        _show("push after an edit", *_timed(lambda: _push(proxy.host, edited, root)))
        proxy.close()


def _write(bundle: Path, megabytes: int) -> None:
    for name in ("bundle.json", "prompt/prompt.json", "model/config.json"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text(json.dumps({}))
    for start in range(0, megabytes, _SHARD):
        with (bundle / "model" / f"model-{start:06}.safetensors").open("wb") as shard:
            for _ in range(min(_SHARD, megabytes - start)):
                shard.write(os.urandom(1_000_000))


def _hash(bundle: Path) -> None:
    for shard in sorted(bundle.rglob("*.safetensors")):
        with shard.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def _push(host: str, image: Image, root: Path) -> Published:
    repository = Registries(Options(plain_http=True)).repository(host, "bench/model")
    reference = ImageReference.parse(f"{host}/bench/model:1")
    publisher = RegistryPublisher(repository, reference, PushMemory(root / "pushed.json"))
    return publisher.publish(Release((Content.of_image(image),)), Silent())


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def _written() -> int:
    """Bytes that this process has handed to the system to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


def _show(what: str, result: object, seconds: float) -> None:
    sent = f", {result.sent / 1e6:,.3f} MB of blobs sent" if isinstance(result, Published) else ""
    print(f"{what:32} {seconds:10.2f} s{sent}", flush=True)


if __name__ == "__main__":
    main()
