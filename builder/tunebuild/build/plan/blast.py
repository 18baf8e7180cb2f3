"""What a difference between two specs, or a spec and an image, sets off.

Compared are each stage's own inputs, without what earlier stages hand it; those follow by the order of the
stages. So nothing here lists fields: a field matters to the stages that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebuild.build.plan.report import Blast, Change
from tunebuild.store import differences

# Who comes after whom, and how far a change of a stage's own inputs reaches.
_AFTER = {
    "data": ("data", "train", "merge", "evaluate", "export", "weights", "image"),
    "train": ("train", "merge", "evaluate", "export", "weights", "image"),
    "merge": ("merge", "evaluate", "export", "weights", "image"),
    "evaluate": ("evaluate", "image"),
    "export": ("export", "image"),  # no file of the image, but its spec
    "runtime": ("runtime", "image"),
    "image": ("image",),
}
_ORDER = ("data", "train", "merge", "evaluate", "export", "weights", "runtime", "image")
_LEVELS = {
    "data": "retrain",
    "train": "retrain",
    "merge": "merge again",
    "runtime": "new packages",
    "image": "serve only",
    "evaluate": "other gates",
    "export": "other exports",
}

#: Fields that no stage's result depends on: what a file is called, where something comes from, what is kept
#: or sent on the way. What is in a file, and what came, counts. A test holds all others to a stage's inputs.
PRESENTATION_ONLY = (
    "apiVersion",
    "extends",
    "outputs",
    "tuning.checkpoints",
    "tuning.report_to",
    "data.train[].path",
    "data.eval.files[].path",
    "prompt.template.file",
    "model.revision",
    "model.token",
    *(
        f"data.{where}[].{name}"
        for where in ("train", "eval.files")
        for name in ("hub", "revision", "token", "split", "config")
    ),
)

# Digests of the whole spec, which say nothing where a field has been named.
_DERIVED = ("org.tunebuild.spec", "spec_digest", "org.tunebuild.prompt", "prompt_digest")

# Inputs of the image that no request ever sees.
_METADATA = ("labels", "reference", "templates", "settings.description", "settings.spec_digest")


def blast(other: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Blast:
    """Compare two builds' own inputs, stage by stage."""
    found = {
        stage: tuple(
            Change(field=f, old=a, new=b) for f, a, b in differences(old.get(stage, {}), new.get(stage, {}))
        )
        for stage in _AFTER
    }
    if any(not change.field.endswith(_DERIVED) for changed in found.values() for change in changed):
        found["image"] = tuple(c for c in found["image"] if not c.field.endswith(_DERIVED))
    changes = {stage: changed for stage, changed in found.items() if changed}
    touched = {later for stage in changes for later in _AFTER[stage]}
    if not new.get("export"):
        touched.discard("export")  # the spec asks for none
    stages = tuple(stage for stage in _ORDER if stage in touched)
    return Blast.model_validate(
        {"other": other, "level": _level(changes), "stages": stages, "changes": changes}
    )


def _level(changes: Mapping[str, tuple[Change, ...]]) -> str:
    seen = {stage for stage, changed in changes.items() if stage != "image" or _is_served(changed)}
    level = next((level for stage, level in _LEVELS.items() if stage in seen), None)
    return level or ("metadata" if changes else "nothing")


def _is_served(changes: tuple[Change, ...]) -> bool:
    """Whether a request can see any of these changes of the image."""
    return not all(change.field.startswith(_METADATA) for change in changes)
