"""``tunebuild init``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click

from tunebuild import __version__, resources
from tunebuild.cli._echo import echo
from tunebuild.errors import fail
from tunebuild.extras import address

# By what is there to train on: a model that trains there within the hour.
_BASES = {"cpu": "HuggingFaceTB/SmolLM2-135M-Instruct", "gpu": "mistralai/Mistral-7B-Instruct-v0.1"}
_WORKFLOW = ".github/workflows/spec.yml"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option(
    "--for",
    "target",
    type=click.Choice(["cpu", "gpu", "ci"]),
    default="gpu",
    show_default=True,
    help="What trains and serves; 'ci' writes only the CI job, for a spec.yaml that is in DIR already.",
)
@click.option(
    "--base",
    help="The base model: a hub id, or a directory in DIR as ./NAME.  "
    f"[default: {_BASES['gpu']}, or {_BASES['cpu']} for cpu]",
)
def command(directory: Path, target: str, base: str | None) -> None:
    """Write a commented spec, some sample rows and a CI job into DIR.

    The job validates and plans on any runner, and builds the main branch on one with a GPU ('--for cpu': on
    any). It installs tunebuild from where this one was installed from; where only this machine can reach
    that, set TUNEBUILD in the job. Files that are there already are never touched.
    """
    spec = directory / "spec.yaml"
    values: dict[str, Any] = {"address": address(), "version": __version__}
    if target == "ci":
        if base:
            raise fail("init", "'--for ci' writes no spec, so it has no use for --base", "leave one out")
        values["device"] = _device_of(spec)
        files = {_WORKFLOW: "workflow.yml.j2"}
    else:
        values["device"] = "cpu" if target == "cpu" else "cuda"
        values["base"] = base or _BASES[target]
        values["local"] = values["base"].startswith(".")
        values["name"] = _name(directory)
        files = {"spec.yaml": "spec.yaml.j2", "faq.jsonl": "faq.jsonl", _WORKFLOW: "workflow.yml.j2"}
    if there := next((name for name in files if (directory / name).exists()), None):
        raise fail("exists", f"{directory / there} is there already", "name a new directory, or move it")
    texts = {name: _rendered(template, values) for name, template in files.items()}
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, "utf-8")
    shown = shlex.quote(str(spec))
    echo(f"wrote {', '.join(files)} in {directory}", err=True)
    if not values["address"]:
        echo(f"set TUNEBUILD in {_WORKFLOW} to where your CI can install tunebuild from", err=True)
    if target != "ci":
        steps = ("validate", "lock", "build")
        echo("next: " + "; ".join(f"tunebuild {step} {shown}" for step in steps), err=True)


def _device_of(spec: Path) -> str:
    from tunebuild.spec import load_spec

    if not spec.is_file():
        raise fail("no-spec", f"there is no {spec}", "leave out '--for ci' to write one, too")
    return load_spec(spec).spec.serving.device


def _name(directory: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")[:63].strip("-") or "model"


def _rendered(template: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    source = resources.path("templates", "init")
    if not template.endswith(".j2"):
        return (source / template).read_text("utf-8")
    environment = Environment(  # noqa: S701 - YAML, not HTML
        loader=FileSystemLoader(source), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template).render(values)
