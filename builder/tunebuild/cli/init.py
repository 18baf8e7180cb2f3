"""``tunebuild init``."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click

from tunebuild import resources
from tunebuild.cli._echo import echo
from tunebuild.errors import fail

_DEFAULT_BASE = "mistralai/Mistral-7B-Instruct-v0.1"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option(
    "--base",
    default=_DEFAULT_BASE,
    show_default=True,
    help="The base model: a hub id, or a directory in DIR as ./NAME.",
)
def command(directory: Path, base: str) -> None:
    """Write a commented spec, some sample rows and a CI job into DIR.

    Files that are there already are never touched.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    source = resources.path("templates", "init")
    files = {
        "spec.yaml": source / "spec.yaml.j2",
        "faq.jsonl": source / "faq.jsonl",
        ".github/workflows/spec.yml": source / "workflow.yml",
    }
    if there := next((name for name in files if (directory / name).exists()), None):
        raise fail("exists", f"{directory / there} is there already", "name a new directory, or move it")
    environment = Environment(  # noqa: S701 - YAML, not HTML
        loader=FileSystemLoader(source), undefined=StrictUndefined, keep_trailing_newline=True
    )
    name = re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")[:63].strip("-") or "model"
    text = environment.get_template("spec.yaml.j2").render(name=name, base=base, local=base.startswith("."))
    for target, origin in files.items():
        (directory / target).parent.mkdir(parents=True, exist_ok=True)
        if origin.suffix == ".j2":
            (directory / target).write_text(text, "utf-8")
        else:
            shutil.copyfile(origin, directory / target)
    spec = shlex.quote(str(directory / "spec.yaml"))
    echo(f"wrote {', '.join(files)} in {directory}", err=True)
    echo(f"next: tunebuild validate {spec}; tunebuild lock {spec}; tunebuild build {spec}", err=True)
