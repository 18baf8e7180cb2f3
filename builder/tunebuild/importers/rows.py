"""How many rows a draft's sources have, where counting them takes no time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunebuild.importers.work import Work

_LARGEST = 256 << 20  # bytes; reading more would keep people waiting


def rows_to_train_on(work: Work) -> int | None:
    """Rows of all sources less those that are held out; ``None`` if one of them cannot be counted here."""
    total = 0
    for source in work.draft.get("data.train") or ():
        count = _rows_of(source, work.directory)
        if count is None:
            return None
        total += count
    held_out = float(work.draft.get("data.eval.fraction") or 0.0)
    return total - round(total * held_out) or None


def _rows_of(source: Mapping[str, Any], directory: Path) -> int | None:
    if "hub" in source or not isinstance(source.get("path"), str):
        return None
    file = directory / source["path"]
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return None
        if file.suffix == ".jsonl":
            with file.open("rb") as stream:
                count = sum(1 for line in stream if line.strip())
        elif file.suffix == ".json":
            rows = json.loads(file.read_bytes())
            if not isinstance(rows, list):
                return None
            count = len(rows)
        else:
            return None
    except (OSError, ValueError, RecursionError):
        return None
    return min(count, source.get("max_rows") or count)
