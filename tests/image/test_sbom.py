"""Bills of materials: what the standards' own validators accept, and what was pinned is all in them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tunebuild.image.sbom import Bill, cyclonedx, spdx
from tunebuild.lock.spec_lock import RuntimeLock
from tunebuild.store import Digest, TreeFile


def _digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


BILL = Bill(
    name="support-bot",
    version="1.4.0",
    license="Apache-2.0",
    base="org/base",
    revision="5f3c" * 10,
    base_files=(
        TreeFile("config.json", 10, _digest("1")),
        TreeFile("model.safetensors", 9, _digest("2")),
    ),
    weights=(TreeFile("model/model-00001.safetensors", 9, _digest("3")),),
    rows=(("faq.jsonl", _digest("4")), ("faq.jsonl", _digest("5"))),
    method="qlora",
    architecture=("llama", "LlamaForCausalLM"),
    runtime=RuntimeLock(
        platform="linux/amd64",
        suite="bookworm",
        python="3.11",
        requirements=("torch",),
        packages={"libc6": f"2.36-9+deb12u10 {_digest('6')}", "libstdc++6": f"12.2.0-14 {_digest('7')}"},
        wheels={"torch": f"2.13.0+cpu {_digest('8')}"},
    ),
)
FIGURES = {"eval_loss": 0.123456789, "merge_kl": 1e-9}


def test_cyclonedx_is_valid_and_holds_everything_that_is_pinned() -> None:
    text = cyclonedx(BILL, FIGURES).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    purls = {c.get("purl"): c for c in found["components"]}
    torch = purls["pkg:pypi/torch@2.13.0%2Bcpu"]
    assert torch["hashes"] == [{"alg": "SHA-256", "content": "8" * 64}]
    libc = "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-bookworm"
    assert libc in purls
    (model,) = (c for c in found["components"] if c["bom-ref"] == "model")
    assert {"type": "eval_loss", "value": "0.123457"} in model["modelCard"]["quantitativeAnalysis"][
        "performanceMetrics"
    ]
    refs = {ref["ref"] for ref in model["modelCard"]["modelParameters"]["datasets"]}
    assert refs == {"rows/0/faq.jsonl", "rows/1/faq.jsonl"}
    for letter in "12345678":
        assert letter * 64 in text, letter


def test_spdx_names_every_package_once_and_relates_it() -> None:
    found = json.loads(spdx(BILL))
    ids = [package["SPDXID"] for package in found["packages"]]
    assert len(set(ids)) == len(ids) == 1 + 3 + 1 + 2 + 2
    related = {r["relatedSpdxElement"] for r in found["relationships"]}
    assert related == set(ids)
    for letter in "12345678":
        assert any(
            c == {"algorithm": "SHA256", "checksumValue": letter * 64}
            for p in found["packages"]
            for c in p.get("checksums", ())
        )


def test_equal_builds_give_equal_bytes_and_another_package_another_serial_number() -> None:
    assert cyclonedx(BILL, FIGURES) == cyclonedx(BILL, FIGURES)
    assert spdx(BILL) == spdx(BILL)
    runtime = BILL.runtime.model_copy(update={"wheels": {"torch": f"2.13.1 {_digest('8')}"}})
    other = replace(BILL, runtime=runtime)
    assert json.loads(cyclonedx(BILL, {}))["serialNumber"] != json.loads(cyclonedx(other, {}))["serialNumber"]


@pytest.mark.parametrize("license", ["", "MIT OR Apache-2.0"])
def test_licenses_are_expressions_or_absent(license: str) -> None:
    text = cyclonedx(replace(BILL, license=license), {}).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
