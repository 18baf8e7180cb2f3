"""A small image with everything that a build attests: record, bills, provenance, signatures."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from support.envelopes import Outputs, make_outputs
from tunebuild.image.oci.content import Content
from tunebuild.image.plan import ImageInputs
from tunebuild.image.sbom import CYCLONEDX, SPDX, Bill, cyclonedx, spdx
from tunebuild.lock.spec_lock import RuntimeLock
from tunebuild.publish.release import Release
from tunebuild.publish.trust.attach import Evidence, attested
from tunebuild.publish.trust.signing import Signer
from tunebuild.store import Digest, TreeFile, digest_json

ROWS = Digest("sha256:" + "4" * 64)
PROVENANCE = {
    "spec": {"name": "demo"},
    "inputs": {"data": {"sources": [{"digest": ROWS}]}, "image": {"reference": "tunebuild-test/demo:1"}},
    "sources": ["faq.jsonl"],
}
BILL = Bill(
    name="demo",
    version="1",
    license="",
    base="org/base",
    revision="",
    base_files=(TreeFile("config.json", 10, Digest("sha256:" + "1" * 64)),),
    weights=(),
    rows=(("faq.jsonl", ROWS),),
    method="lora",
    architecture=("llama", "LlamaForCausalLM"),
    runtime=RuntimeLock(
        platform="linux/amd64",
        suite="bookworm",
        python="3.11",
        requirements=(),
        packages={},
        wheels={"torch": "2.13.0 sha256:" + "8" * 64},
    ),
)


@dataclass(frozen=True)
class Attested:
    """What was made, and with which key."""

    outputs: Outputs
    release: Release
    signer: Signer

    @property
    def others(self) -> tuple[Content, ...]:
        return self.release.contents[1:]


def make_attested(inputs: ImageInputs, *, sign: bool = True, size: int = 2560) -> Attested:
    """The synthetic image as a build would publish it."""
    spec = digest_json(PROVENANCE["spec"])
    settings = {"name": "demo", "spec_digest": spec, "prompt_digest": "sha256:p"}
    records = {
        "bundle.json": json.dumps(settings).encode(),
        "build/provenance.json": json.dumps(PROVENANCE).encode(),
        "build/figures.json": b'{"figures":[{"label":"loss","tuned":"0.1"}]}',
        f"build/{CYCLONEDX}": cyclonedx(BILL, {}),
        f"build/{SPDX}": spdx(BILL),
    }
    for name, data in records.items():
        (inputs.bundle / name).parent.mkdir(exist_ok=True)
        (inputs.bundle / name).write_bytes(data)
    labels = (("org.tunebuild.spec", spec), ("org.tunebuild.prompt", "sha256:p"))
    outputs = make_outputs(replace(inputs, labels=labels), size=size)
    signer = Signer(ec.generate_private_key(ec.SECP256R1()))
    evidence = Evidence("tunebuild-test/demo", cyclonedx(BILL, {}), spdx(BILL), PROVENANCE, BILL)
    release = Release((Content.of_image(outputs.image), outputs.weights, outputs.adapter))
    return Attested(outputs, attested(release, evidence, signer if sign else None), signer)
