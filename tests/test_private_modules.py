"""A module whose name begins with an underscore belongs to its package: nothing outside imports it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tunebuild

ROOT = Path(tunebuild.__file__).parents[1]


def _imported(source: str) -> Iterator[str]:
    """Dotted names of what a module imports, wherever in it: modules, and names of modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _private_imports(module: str, source: str) -> list[str]:
    """What a module imports that is private to a package that it is not in."""
    found = []
    for name in _imported(source):
        if not name.startswith("tunebuild."):
            continue
        parts = name.split(".")
        for depth, part in enumerate(parts):
            owner = ".".join(parts[:depth])
            if part.startswith("_") and not part.startswith("__") and not module.startswith(f"{owner}."):
                found.append(name)
                break
    return found


def test_nothing_private_is_imported_across_packages() -> None:
    files = sorted((ROOT / "tunebuild").rglob("*.py"))
    assert len(files) > 300
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in files
        if (
            found := _private_imports(
                ".".join(file.relative_to(ROOT).with_suffix("").parts), file.read_text("utf-8")
            )
        )
    }
    assert not wrong


def test_an_import_across_packages_is_seen_wherever_it_stands() -> None:
    texts = (
        "from tunebuild.serve.engines._rows import SeparateRows",
        "from tunebuild.serve.engines import _rows",
        "import tunebuild.serve.engines._rows",
        "def f():\n    from tunebuild.serve.engines._rows import SeparateRows",
        "from tunebuild.merge.strategies import _help",
    )
    for text in texts:
        assert _private_imports("tunebuild.evaluate.generate", text), text
    assert not _private_imports("tunebuild.serve.engines.batch", texts[0])
    assert not _private_imports("tunebuild.serve.engines.vllm.more", texts[0])
    assert not _private_imports("tunebuild.evaluate.generate", "from tunebuild import __version__")
