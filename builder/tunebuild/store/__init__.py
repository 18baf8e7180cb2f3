"""Content-addressed stages: equal inputs are built once."""

from tunebuild.store.digest import Digest, canonical_json, digest_bytes, digest_file, digest_json
from tunebuild.store.stage import Inputs, Progress, Silent, Stage, StageKey, differences, inputs_of, key_of
from tunebuild.store.store import Reason, Store
from tunebuild.store.tree import UNBUILT, Tree, TreeFile, scan

__all__ = [
    "UNBUILT",
    "Digest",
    "Inputs",
    "Progress",
    "Reason",
    "Silent",
    "Stage",
    "StageKey",
    "Store",
    "Tree",
    "TreeFile",
    "canonical_json",
    "differences",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "inputs_of",
    "key_of",
    "scan",
]
