"""Everything that a build publishes: the runnable image, the spec's other outputs, and what attests them."""

from __future__ import annotations

from tunebuild.build.run import Built
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Variables
from tunebuild.image.sbom import CYCLONEDX, SPDX
from tunebuild.image.weights import digests_of
from tunebuild.publish.envelopes import adapter_image, weights_image
from tunebuild.publish.modelpack import modelpack
from tunebuild.publish.release import Release
from tunebuild.publish.trust.attach import Evidence, attested, signed
from tunebuild.publish.trust.signing import Signer
from tunebuild.report.render import CARD
from tunebuild.spec.spec import Output
from tunebuild.store import digest_json


def release_of_build(built: Built, signer: Signer | None = None, *, attest: bool = True) -> Release:
    """Describe all outputs. Reads an adapter that is merged; of weights, their headers at most.

    Args:
        built: the build.
        signer: signs them.
        attest: whether bills of materials and provenance come with them.
    """
    others = (_make(built, output) for output in built.pipeline.spec.outputs if output != "image")
    release = Release((Content.of_image(built.image), *others))
    if not attest:
        return signed(release, signer) if signer else release
    pipeline = built.pipeline
    evidence = Evidence(
        built.image.reference.repository,
        built.settings.path("build", CYCLONEDX).read_bytes(),
        built.settings.path("build", SPDX).read_bytes(),
        pipeline.provenance,
        pipeline.bill(built.records, built.runtime),
    )
    return attested(release, evidence, signer)


def _make(built: Built, output: Output) -> Content:
    if output == "weights":
        return weights_image(built.image)
    if output == "adapter":
        trained = built.records.train
        files = [trained.path(f.path).resolve() for f in trained.files if f.path.startswith("adapter/")]
        return adapter_image(built.image, files, _base(built))
    measured = {**digests_of(built.records.merge), **digests_of(built.parts.chat)}
    return modelpack(built.image, built.plan, built.settings.path("build", CARD), measured)


def _base(built: Built) -> Variables:
    """What an adapter belongs on: the base's name, its commit, a digest of its weights and configuration."""
    pipeline = built.pipeline
    model, locked = pipeline.spec.model, pipeline.lock.model if pipeline.lock else None
    revision = (locked.commit if locked else None) or model.revision or ""
    return (
        ("org.tunebuild.base", model.base),
        *((("org.tunebuild.base.revision", revision),) if revision else ()),
        ("org.tunebuild.base.digest", digest_json(pipeline.base.weight_digests)),
    )
