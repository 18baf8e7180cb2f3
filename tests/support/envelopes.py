"""The synthetic image with what a real build has: a tokenizer, a chat template, an adapter, a card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Image
from tunebuild.image.plan import ImageInputs, ImagePlan, assemble, plan_image
from tunebuild.publish.envelopes import adapter_image, weights_image
from tunebuild.publish.modelpack import modelpack

BASE = (("org.tunebuild.base", "org/base"), ("org.tunebuild.base.digest", "sha256:" + "1" * 64))


def safetensors(data: bytes) -> bytes:
    """A file of one bfloat16 tensor."""
    entry = {"dtype": "BF16", "shape": [len(data) // 2], "data_offsets": [0, len(data)]}
    header = json.dumps({"weight": entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


def _tokenizer(path: Path) -> bytes:
    """The prompt's, which is the model's; made up where there is none."""
    if not path.is_file():
        path.write_bytes(b'{"model":{}}')
    return path.read_bytes()


@dataclass(frozen=True)
class Outputs:
    """An image and a build's other outputs."""

    image: Image
    plan: ImagePlan
    weights: Content
    adapter: Content
    modelpack: Content

    @property
    def others(self) -> Sequence[Content]:
        return self.weights, self.adapter, self.modelpack


def make_outputs(inputs: ImageInputs, *, apart: bool = False, size: int = 1_280_000) -> Outputs:
    """Complete the synthetic bundle and describe all outputs of it."""
    files = {
        "model/model-00001-of-00002.safetensors": safetensors(bytes(range(256)) * (size // 256)),
        "model/model-00002-of-00002.safetensors": safetensors(b"ab" * 64),
        "tokenizer/tokenizer.json": _tokenizer(inputs.bundle / "prompt" / "tokenizer.json"),
        "tokenizer/chat_template.jinja": b"{{ messages }}",
        "chat/generation_config.json": b"{}",
        "../README.md": b"# Card\n",
        "../adapter/adapter_config.json": b"{}",
        "../adapter/adapter_model.safetensors": safetensors(b"cd" * 4000),
    }
    for name, data in files.items():
        path: Path = inputs.bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    adapter = sorted((inputs.bundle.parent / "adapter").resolve().iterdir())
    if apart:
        (inputs.bundle / "adapter").symlink_to(adapter[0].parent)
    plan = plan_image(inputs)
    image = assemble(plan)
    return Outputs(
        image,
        plan,
        weights_image(image),
        adapter_image(image, adapter, BASE),
        modelpack(image, plan, inputs.bundle.parent / "README.md", {}),
    )
