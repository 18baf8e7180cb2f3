"""What an image says of itself: its labels, and the bill of what it is made of."""

from __future__ import annotations

from tunebuild.data.stage import DataStage
from tunebuild.image.oci.manifest import Variables
from tunebuild.image.sbom import Bill
from tunebuild.lock.spec_lock import RepositoryLock, RuntimeLock
from tunebuild.models.base_model import BaseModel
from tunebuild.serve.bundle import Bundle
from tunebuild.spec.spec import Spec
from tunebuild.store import Tree


def labels_of(spec: Spec, settings: Bundle) -> Variables:
    """The image's labels.

    Args:
        spec: what the author says of the image.
        settings: what the endpoint is told, with digests of spec and prompt.
    """
    image = spec.image
    given = ("source", image.source), ("revision", image.revision), ("licenses", image.license)
    return (
        ("org.opencontainers.image.description", spec.description or f"Fine-tuned model {spec.name}"),
        ("org.tunebuild.spec", settings.spec_digest),
        ("org.tunebuild.prompt", settings.prompt_digest),
        ("org.tunebuild.base", spec.model.base),
        *((f"org.opencontainers.image.{name}", value) for name, value in given if value),
    )


def bill_of(
    spec: Spec,
    base: BaseModel,
    locked: RepositoryLock | None,
    data: DataStage,
    method: str,
    merged: Tree,
    runtime: RuntimeLock,
) -> Bill:
    """What the image is made of.

    Args:
        spec: the names.
        base: the base model.
        locked: its commit, where it is locked.
        data: the files of rows.
        method: of the training.
        merged: the merge stage's output.
        runtime: packages of the image.
    """
    rows = zip(data.sources, data.own()["sources"], strict=True)
    weights = (file for file in merged.files if file.path.startswith("model/"))
    return Bill(
        name=spec.name,
        version=spec.image.tag,
        license=spec.image.license,
        base=spec.model.base,
        revision=(locked.commit if locked else None) or spec.model.revision or "",
        base_files=base.files,
        weights=tuple(file for file in weights if not file.path.endswith("/generation_config.json")),
        rows=tuple((source.shown, row["digest"]) for source, row in rows),
        method=method,
        architecture=(
            str(base.config.get("model_type", "")),
            (base.config.get("architectures") or [""])[0],
        ),
        runtime=runtime,
    )
