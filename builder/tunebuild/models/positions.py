"""How many tokens a base model has positions for, by its ``config.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# As most architectures call it, and as GPT-2 and its kin, DBRX and MPT, and Kimi do.
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length")
_MOST = 1 << 40
# What they remember does not depend on a position; hybrids that give one to no token are among them.
_RECURRENT = ("mamba", "rwkv", "xlstm", "recurrent_gemma", "jamba")


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model was made for; ``None`` if its configuration names no end.

    Scaled rotary positions reach as far as the larger of the named length and the scaled original one:
    some configurations name the extended length, others the one before it.
    """
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) and inner else config
    most = next((text[name] for name in _NAMES if _number(text.get(name))), None)
    if most is None or text.get("alibi") or text.get("position_embedding_type") == "alibi":
        return None
    if any(name in str(text.get("model_type")) for name in _RECURRENT):
        return None
    return max([most, *_scaled(text, most)])


def _scaled(text: Mapping[str, Any], most: int) -> Iterator[int]:
    """Lengths that the scaling comes to. Newer configurations have one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = text.get(name)
        if not isinstance(rope, Mapping):
            continue
        for one in (rope, *(inner for inner in rope.values() if isinstance(inner, Mapping))):
            original = _number(one.get("original_max_position_embeddings")) or most
            yield int(original * max(1.0, _number(one.get("factor")) or 1.0))


def _number(value: Any) -> float | None:
    """A number that a length or a factor can be; a model with any other cannot be built."""
    return value if type(value) in (int, float) and 0 < value < _MOST else None
