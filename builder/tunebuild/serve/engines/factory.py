"""Makes the engine that a bundle names. Each engine's module is imported only here, when it is asked for."""

from __future__ import annotations

from tunebuild.serve.engines.base import Engine, EngineSetup


def make_engine(name: str, setup: EngineSetup) -> Engine:
    """An engine that is not started yet.

    Args:
        name: ``serving.engine`` of the spec.
        setup: what it is made of.

    Raises:
        ValueError: there is no such engine.
    """
    if name == "transformers":
        from tunebuild.serve.engines.transformers import TransformersEngine

        return TransformersEngine(setup)
    if name == "vllm":
        from tunebuild.serve.engines.vllm import VllmEngine

        return VllmEngine(setup)
    raise ValueError(f"there is no engine '{name}'")
