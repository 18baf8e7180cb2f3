"""The spec language: models, loading, validation and the JSON Schema."""

from tunebuild.spec.load import LoadedSpec, load_spec
from tunebuild.spec.spec import Spec

__all__ = ["LoadedSpec", "Spec", "load_spec"]
