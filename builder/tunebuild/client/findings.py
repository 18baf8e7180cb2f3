"""Findings of a verification as files: JUnit for CI, JSON for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

from tunebuild.client.conduct import Finding
from tunebuild.printable import printable


def save_junit(file: Path, name: str, findings: Sequence[Finding]) -> None:
    """Write a JUnit report; what does not hold is a failure."""
    failures = sum(bool(finding.problem) for finding in findings)
    total = sum(finding.seconds for finding in findings)
    head = {"tests": str(len(findings)), "failures": str(failures), "time": f"{total:.3f}"}
    suites = xml.Element("testsuites", head)
    suite = xml.SubElement(suites, "testsuite", {"name": f"tunebuild verify {name}", **head})
    for finding in findings:
        seconds = f"{finding.seconds:.3f}"
        attributes = {"classname": finding.group, "name": finding.name, "time": seconds}
        case = xml.SubElement(suite, "testcase", attributes)
        if finding.problem:
            failure = xml.SubElement(case, "failure", {"message": printable(finding.problem)})
            failure.text = printable(finding.problem)
        elif finding.detail:
            xml.SubElement(case, "system-out").text = printable(finding.detail)
    xml.indent(suites)
    file.write_bytes(xml.tostring(suites, "utf-8", xml_declaration=True) + b"\n")


def save_json(file: Path, name: str, findings: Sequence[Finding], figures: Mapping[str, Any]) -> None:
    """Write everything that was found, and the figures."""
    value = {
        "name": name,
        "passed": not any(finding.problem for finding in findings),
        "figures": dict(figures),
        "findings": [
            {
                "group": finding.group,
                "name": finding.name,
                "passed": not finding.problem,
                "problem": finding.problem,
                "detail": finding.detail,
                "seconds": round(finding.seconds, 3),
            }
            for finding in findings
        ],
    }
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
