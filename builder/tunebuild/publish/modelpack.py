"""The model as a CNCF ModelPack: each file a blob of its own, not packed.

Source: CNCF model-spec 0.0.7. Its layers are files, those of images are tars with the file in them, so a
registry stores the weights twice; that is why this output is made only where it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from tunebuild.image.oci.content import Blob, Content
from tunebuild.image.oci.layer import FileRange
from tunebuild.image.oci.manifest import MANIFEST_TYPE, Image, descriptor
from tunebuild.image.plan import ImagePlan
from tunebuild.models.safetensors_header import read_header
from tunebuild.publish.envelopes import model_files
from tunebuild.store import Digest, digest_file
from tunebuild.store.digest import canonical_json, digest_bytes

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
_WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
_FILE_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
_PATH = "org.cncf.model.filepath"
_METADATA = "org.cncf.model.file.metadata+json"
_CREATED = "1970-01-01T00:00:00Z"

_PRECISION = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}


def modelpack(image: Image, plan: ImagePlan, card: Path, measured: Mapping[Path, Digest]) -> Content:
    """The artifact.

    Args:
        image: the runnable image, which says what the model is called.
        plan: its plan, which knows the files.
        card: the model card.
        measured: digests of files that are known, by resolved path, so that weights are not read again.
    """
    files = [*model_files(plan), ("README.md", FileRange.whole(card))]
    layers, blobs = [], []
    for name, content in files:
        assert isinstance(content, FileRange)
        digest = measured.get(content.path) or digest_file(content.path)
        kind = _WEIGHT_TYPE if name.endswith(".safetensors") else _FILE_TYPE
        layer = descriptor(_DOC_TYPE if name == "README.md" else kind, digest, content.size)
        layer["annotations"] = {_PATH: name, _METADATA: _metadata(name, content.size)}
        layers.append(layer)
        blobs.append(Blob(digest, (content,), name))
    weights = [content.path for name, content in files if name.endswith(".safetensors")]
    config = canonical_json(
        {
            "descriptor": _descriptor(json.loads(image.config)["config"]["Labels"]),
            "config": {"architecture": "transformer", "format": "safetensors", **_size(weights)},
            "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
        }
    )
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": descriptor(_CONFIG_TYPE, digest_bytes(config), len(config)),
            "layers": layers,
        }
    )
    own = (*blobs, Blob.of_bytes(config, "config"))
    return Content(manifest, own, "modelpack", artifact_type=ARTIFACT_TYPE)


def _metadata(name: str, size: int) -> str:
    """What a tar would say of the file."""
    return json.dumps(
        {"name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": size, "mtime": _CREATED, "typeflag": 48},
        sort_keys=True,
        separators=(",", ":"),
    )


def _descriptor(labels: Mapping[str, str]) -> dict[str, Any]:
    prefix = "org.opencontainers.image."
    named = {"title": "name", "version": "version", "description": "description"}
    named |= {"source": "sourceURL", "revision": "revision"}
    found: dict[str, Any] = {
        ours: labels[prefix + label] for label, ours in named.items() if prefix + label in labels
    }
    if licenses := labels.get(f"{prefix}licenses"):
        found["licenses"] = [licenses]
    return {"createdAt": _CREATED, **found}


def _size(weights: list[Path]) -> dict[str, str]:
    tensors = [entry for file in weights for entry in read_header(file).values()]
    count = sum(prod(entry["shape"]) for entry in tensors)
    precisions = sorted({_PRECISION[t["dtype"]] for t in tensors if t["dtype"] in _PRECISION})
    return {"paramSize": _with_prefix(count), "precision": ",".join(precisions)}


def _with_prefix(count: int) -> str:
    """A count with a letter for its magnitude, as the specification writes it."""
    for power, letter in _prefixes():
        if count >= power:
            return f"{count / power:.1f}".removesuffix(".0") + letter
    return f"{count / 1e3:.1f}".removesuffix(".0") + "K"


def _prefixes() -> Iterator[tuple[float, str]]:
    yield from ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
