"""Writes an export's folder: what vLLM and transformers load, and what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunebuild.export.chat_template import ChatTemplate, write_tokenizer
from tunebuild.export.folder import RECORD, Exported
from tunebuild.image.generation import FILE_NAME as GENERATION
from tunebuild.image.generation import generation_config
from tunebuild.report.export import render_export_card
from tunebuild.report.facts import Records
from tunebuild.serve.bundle import Bundle
from tunebuild.store import scan

_CARD = "README.md"
_PROMPT = "prompt"


def write_folder(
    exported: Exported, records: Records, provenance: Mapping[str, Any], settings: Bundle, folder: Path
) -> ChatTemplate:
    """Write the folder whole: what was there before stays until then.

    Args:
        exported: the model and its figures.
        records: of the build.
        provenance: as the image carries it.
        settings: what the image's endpoint is told.
        folder: its place.

    Returns:
        What came of the chat template.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in exported.model.files:
        shutil.copyfile(exported.model.path(file.path), partial / file.path.removeprefix("model/"))
    shutil.copytree(records.data.path(_PROMPT), partial / _PROMPT)
    template = write_tokenizer(partial / _PROMPT, partial)
    (partial / GENERATION).write_text(generation_config(partial, partial / _PROMPT, settings), "utf-8")
    record: dict[str, Any] = {
        "export": exported.export.model_dump(mode="json"),
        "tool": exported.tool.versions,
        "figures": {"merged": dict(exported.before), "exported": dict(exported.figures)},
        "rows": {"count": exported.rows, "held_out": exported.of == "eval.arrow"},
        "chat_template": asdict(template),
        "digests": {
            "spec": settings.spec_digest,
            "prompt": settings.prompt_digest,
            "data": records.data.digest,
            "merged": records.merge.digest,
            "exported": exported.model.digest,
        },
    }
    card = render_export_card(records.read(), provenance, record)
    (partial / _CARD).write_text(card, "utf-8")
    record["files"] = {file.path: file.digest for file in scan(partial).files}
    (partial / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    before = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)  # a kill leaves the one or the other whole
    partial.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
    return template
