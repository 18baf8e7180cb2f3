"""Words that messages about a spec share."""

from __future__ import annotations

from collections.abc import Sequence

from tunebuild.spec.yaml_loader import NodePath


def dotted(path: NodePath) -> str:
    """``("data", "train", 0, "path")`` as ``data.train[0].path``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def close(word: str, known: Sequence[str], likeness: float) -> str | None:
    """The known word that is most like another one, if it is at least so like it (0 to 1)."""
    from difflib import get_close_matches

    lowered = {k.lower(): k for k in known}
    match = get_close_matches(word.lower(), lowered, n=1, cutoff=likeness)
    return lowered[match[0]] if match else None


def suggest(word: str, known: Sequence[str]) -> str:
    """A hint for a misspelt word: the closest known one, or all of them if they are few."""
    if match := close(word, known, 0.55):
        return f"did you mean '{match}'?"
    return f"one of: {', '.join(known)}" if 0 < len(known) <= 14 else ""
