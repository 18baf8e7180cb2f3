"""The build's other outputs as images: the model's folder without a server, and the adapter alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunebuild.image.oci.content import Blob, Content
from tunebuild.image.oci.layer import Layer, layer_of_files
from tunebuild.image.oci.manifest import (
    CONFIG_TYPE,
    EPOCH,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Image,
    Variables,
    descriptor,
)
from tunebuild.image.plan import ADAPTER, ImagePlan, adapter_layer, is_model_layer
from tunebuild.store.digest import canonical_json, digest_bytes

_NOT_OF_DATA = ("org.tunebuild.version",)


def weights_image(image: Image) -> Content:
    """``/models`` alone: the runnable image's own layers of it, so that a registry stores nothing twice.

    Kubernetes mounts it as an image volume, KServe as ``oci+native://``; what then runs is
    ``vllm serve /models`` or whatever else reads a folder of transformers.
    """
    layers = [layer for layer in image.layers if is_model_layer(layer.name)]
    return _data_image("weights", layers, json.loads(image.config), ())


def adapter_image(image: Image, files: Iterable[Path], base: Variables) -> Content:
    """``/adapter`` alone, in PEFT's format.

    Args:
        image: the runnable image, whose layer it is where the adapter was not merged.
        files: of the adapter.
        base: annotations that say what it belongs on.
    """
    layers = [layer for layer in image.layers if layer.name == ADAPTER]
    layers = layers or [layer_of_files(adapter_layer(list(files)))]
    return _data_image("adapter", layers, json.loads(image.config), base)


def model_files(plan: ImagePlan) -> list[tuple[str, Any]]:
    """Name in ``/models`` and content of each file of the model, weights first."""
    return [
        (entry.name.partition("/")[2], entry.content)
        for layer in plan.layers
        if is_model_layer(layer.name) and not isinstance(layer, Layer)
        for entry in layer.entries
    ]


def _data_image(
    output: str, layers: list[Layer], runnable: Mapping[str, Any], annotations: Variables
) -> Content:
    """An image that nobody runs. It says of itself what the runnable one says."""
    labels = {k: v for k, v in runnable["config"]["Labels"].items() if k not in _NOT_OF_DATA}
    config = canonical_json(
        {
            "created": EPOCH,
            "os": runnable["os"],
            "architecture": runnable["architecture"],
            "config": {"Labels": {**labels, "org.tunebuild.output": output}},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [{"created": EPOCH, "created_by": layer.created_by} for layer in layers],
        }
    )
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, digest_bytes(config), len(config)),
        "layers": [descriptor(LAYER_TYPE, layer.digest, layer.size) for layer in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    blobs = (*(Blob(x.digest, x.segments, x.name) for x in layers), Blob.of_bytes(config, "config"))
    return Content(canonical_json(manifest), blobs, output)
