"""The ``image`` stage: knows every layer's digest without keeping a second copy of any layer.

Its output is small: config, manifest, and the digests of the layers. The layers themselves are described
as ranges of files that other stages wrote, so an archive, a runtime or a registry is fed from those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tunebuild import resources
from tunebuild.image.bundle import BundleParts
from tunebuild.image.generation import FILE_NAME as GENERATION
from tunebuild.image.generation import generation_config
from tunebuild.image.oci.layer import FileRange, FilesLayer, Layer, layer_of_files
from tunebuild.image.oci.manifest import Image, Platform, Variables, make_image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import (
    PROVENANCE,
    ImageInputs,
    ImagePlan,
    app_entries,
    device_environment,
    plan_image,
)
from tunebuild.image.sbom import CYCLONEDX, SPDX, Bill, cyclonedx, spdx
from tunebuild.image.weights import digests_of
from tunebuild.report.facts import Records
from tunebuild.report.render import CARD, REPORT, TEMPLATES, render_card, render_report
from tunebuild.report.summary import FIGURES, render_figures
from tunebuild.store import (
    Digest,
    Inputs,
    Progress,
    Tree,
    canonical_json,
    digest_bytes,
    digest_file,
    digest_json,
)

_LAYERS = "layers.json"


class Scan(Protocol):
    """Looks into an image before it is made."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What decides besides the image."""

    def check(self, plan: ImagePlan) -> None:
        """Raise ``TunebuildError`` if it must not be made."""


@dataclass(frozen=True, slots=True)
class ImageStage:
    """Plans the image and learns its digests.

    Attributes:
        reference: name and tag.
        parts: what the bundle is made of.
        runtime: base and Python layers, finished.
        weights: digests of the weight layers, by name.
        records: what the report and the card tell of.
        labels: labels that describe where the image came from.
        platform: e.g. ``linux/amd64``.
        bill: what the image is made of, for its bills of materials; ``None`` only where nothing is run.
        scan: looks into the planned image, and raises where it must not be made.
        provenance: the spec, each stage's own inputs, and the names of the files of rows; it travels in the
            image.
    """

    reference: ImageReference
    parts: BundleParts
    runtime: tuple[Layer, ...]
    weights: Mapping[str, Digest]
    records: Records
    labels: Variables
    provenance: Mapping[str, Any]
    platform: str = "linux/amd64"
    bill: Bill | None = None
    scan: Scan | None = None
    name: str = "image"
    version: int = 6

    def own(self) -> Inputs:
        """Names, settings, and the program that the container runs."""
        return {
            "reference": str(self.reference),
            "settings": self.parts.settings.model_dump(mode="json"),
            "labels": dict(self.labels),
            "platform": self.platform,
            "server": _server_digests(),
            "templates": [digest_file(resources.path("templates", *name)) for name in TEMPLATES],
        }

    def upstream(self) -> Inputs:
        """Digests of everything that other stages put into the image."""
        in_prompt = [f for f in self.parts.data.files if f.path.startswith("prompt/")]
        in_model = [f for f in self.parts.merged.files if f.path.startswith("model/")]
        return {
            "prompt": {f.path: f.digest for f in in_prompt},
            "weights": {f.path: f.digest for f in in_model},
            "adapter": {f.path: f.digest for f in self.parts.adapter},
            "parity": self.parts.parity,
            "chat": {f.path: f.digest for f in self.parts.chat.files if f.path.startswith("tokenizer/")},
            "runtime": [layer.digest for layer in self.runtime],
            "provenance": digest_json(self.provenance),
            "records": {name: file.digest for name, file in self.records.files.items()},
            "bill": self.bill.digest if self.bill else None,
            "scan": self.scan.inputs if self.scan else None,
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Hash the layers that are not known yet: what is small."""
        self.parts.settings.save(out)
        (out / "build").mkdir()
        (out / "build" / PROVENANCE).write_bytes(canonical_json(self.provenance))
        self._write_report(out / "build")
        (out / "chat").mkdir()
        merged, prompt = self.parts.merged.path("model"), self.parts.data.path("prompt")
        generation = generation_config(merged, prompt, self.parts.settings)
        (out / "chat" / GENERATION).write_text(generation, "utf-8")
        plan = self.plan(out)
        if self.scan:
            self.scan.check(plan)
        layers = []
        measured: dict[Path, Digest] = {}
        for tree in (self.parts.data, self.parts.merged, self.parts.trained, self.parts.chat):
            measured |= digests_of(tree)
        for number, layer in enumerate(plan.layers, 1):
            if layer.name in self.weights:
                layers.append(_finished(layer, self.weights[layer.name]))
            else:
                layers.append(layer if isinstance(layer, Layer) else layer_of_files(layer, measured))
            progress.step(number, len(plan.layers), layer.name)
        image = make_image(plan.reference, plan.runtime, tuple(layers))
        (out / "config.json").write_bytes(image.config)
        (out / "manifest.json").write_bytes(image.manifest)
        rows = [{"name": x.name, "digest": x.digest, "size": x.size} for x in layers]
        (out / _LAYERS).write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
        progress.say(f"{len(layers)} layers, {image.size / 1e6:,.1f} MB, {image.digest}")

    def _write_report(self, directory: Path) -> None:
        facts = self.records.read()
        (directory / REPORT).write_text(render_report(facts, self.provenance), "utf-8")
        (directory / CARD).write_text(render_card(facts, self.provenance), "utf-8")
        (directory / FIGURES).write_text(render_figures(facts, self.provenance), "utf-8")
        if self.bill:
            (directory / CYCLONEDX).write_bytes(cyclonedx(self.bill, facts.metrics))
            (directory / SPDX).write_bytes(spdx(self.bill))

    def plan(self, settings_dir: Path) -> ImagePlan:
        """The plan; ``settings_dir`` holds this stage's ``bundle.json``."""
        with TemporaryDirectory(prefix="tunebuild-") as directory:
            # Plans hold resolved paths, so the links may go once the plan is made.
            self.parts.lay_out(Path(directory), settings_dir)
            return plan_image(
                ImageInputs(
                    self.reference,
                    Path(directory),
                    self.runtime,
                    port=self.parts.settings.port,
                    env=device_environment(self.parts.settings.device),
                    labels=self.labels,
                    platform=Platform(*self.platform.split("/")),
                )
            )

    def image(self, output: Tree) -> Image:
        """The finished image, from this stage's output; reads no layer."""
        plan = self.plan(output.root)
        digests = [Digest(row["digest"]) for row in json.loads(output.path(_LAYERS).read_text("utf-8"))]
        layers = tuple(_finished(layer, digest) for layer, digest in zip(plan.layers, digests, strict=True))
        return make_image(plan.reference, plan.runtime, layers)


def _finished(layer: Layer | FilesLayer, digest: Digest) -> Layer:
    if isinstance(layer, Layer):
        return layer
    return Layer(layer.name, layer.created_by, layer.segments, digest, layer.size)


def _server_digests() -> dict[str, Digest]:
    """Digests of the program that the container runs, by path."""
    return {entry.name: _digest_of(entry.content) for entry in app_entries()}


def _digest_of(content: object) -> Digest:
    if isinstance(content, FileRange):
        return digest_file(content.path)
    assert isinstance(content, bytes)
    return digest_bytes(content)
