"""The command line: one small file per verb, only wiring and printing."""

from __future__ import annotations

import gc
import os
import sys

import click

from tunebuild import __version__
from tunebuild.cli._echo import survive_any_text
from tunebuild.cli._errors import run_reporting_errors
from tunebuild.cli._lazy import LazyGroup
from tunebuild.heavy_imports import put_off_collection

put_off_collection()
# Looking for plugins takes pydantic a tenth of the time that 'validate' takes, and we have none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# torch's threads wait for one another by spinning unless they are told not to, so one that has to share its
# core holds up all of them: a build also fetches wheels while it trains. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Training libraries tell a hub that they are used, from a thread; a build talks to nobody it was not told to.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HELP = """Fine-tune an LLM and package it as a verified, OpenAI-compatible container from one YAML file.

Start with 'tunebuild init DIR', then validate, plan, build and run its spec.
"""

_VERBS = {
    "init": ("tunebuild.cli.init", "Write a commented spec, sample rows and a CI job."),
    "import": (
        "tunebuild.cli.import_config",
        "Turn another tool's configuration (axolotl, Unsloth and the like) into a spec.",
    ),
    "validate": ("tunebuild.cli.validate", "Check a spec; prints every problem with its line."),
    "data": ("tunebuild.cli.data", "Show the rows as the model sees them, and which tokens are in the loss."),
    "plan": ("tunebuild.cli.plan", "Show what a build would do, and why."),
    "lock": ("tunebuild.cli.lock", "Record specs and pin everything they name in a lock file."),
    "build": ("tunebuild.cli.build", "Train, merge and assemble the image; prints its digest."),
    "push": ("tunebuild.cli.push", "Push the image to a registry, without a container runtime."),
    "bundle": ("tunebuild.cli.bundle", "Write all that is published to one file, for where no network is."),
    "load": ("tunebuild.cli.load", "Load the image into Docker or Podman."),
    "deploy": ("tunebuild.cli.deploy", "Write manifests for Compose, Kubernetes or KServe."),
    "launch": ("tunebuild.cli.launch", "Render the launch command for training on several machines."),
    "train": ("tunebuild.cli.train", "Train in one process started by a launcher."),
    "render": ("tunebuild.cli.render", "Write the Docker build context for another builder."),
    "export": (
        "tunebuild.cli.export",
        "Write the tuned model quantized (GPTQ, AWQ), for vLLM and transformers.",
    ),
    "run": ("tunebuild.cli.run", "Start the endpoint of a built spec."),
    "chat": ("tunebuild.cli.chat", "Talk to an endpoint in the terminal."),
    "verify": (
        "tunebuild.cli.verify",
        "Check an image or endpoint against its training prompts and answers.",
    ),
    "explain": ("tunebuild.cli.explain", "Tell what an image was built from."),
    "render-spec": ("tunebuild.cli.render_spec", "Print the effective spec, overlays and defaults included."),
    "doctor": ("tunebuild.cli.doctor", "Check this machine: packages, card, memory, disk, network."),
    "cache": ("tunebuild.cli.cache", "List, explain, check and clean the store of finished stages."),
    "schema": ("tunebuild.cli.schema", "Print the spec's JSON Schema, for editors."),
}

# What a verb cannot do without besides the core.
_EXTRAS = {
    "data": ("plan",),
    "plan": ("plan",),
    "lock": ("plan",),
    "build": ("train",),
    "train": ("train",),
    "bundle": ("train",),
    "render": ("train",),
    "export": ("train", "export"),
    "run": ("train",),
}

app = LazyGroup(_VERBS, _HELP, _EXTRAS)
click.version_option(__version__, prog_name="tunebuild")(app)


def main() -> None:
    """Entry point of the ``tunebuild`` command."""
    survive_any_text()
    status = run_reporting_errors(lambda: app(standalone_mode=False))
    gc.freeze()  # or the collector looks at every object once more before they all go
    sys.exit(status)
