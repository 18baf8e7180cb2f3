"""The model hub."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tunebuild.extras import is_there
from tunebuild.preflight.doctor.finding import Finding, Needs, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine
from tunebuild.spec.secret import reveal

NAME = "hub"


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Whether it answers; with a spec, whether it hands out what that names."""
    if needs and not needs.hub:
        yield ok("the spec takes nothing from a model hub")
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        text = "HF_HUB_OFFLINE is set, so only what has been downloaded before can be used"
        yield warning(text, "unset HF_HUB_OFFLINE")
        return
    if not is_there("huggingface_hub"):
        yield warning(
            "huggingface_hub is not installed, so nothing comes from a hub", "install the extra 'plan'"
        )
        return
    from huggingface_hub import constants, get_token

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    if not needs:
        answer = machine.get(endpoint)
        yield (
            _silent(endpoint, answer) if isinstance(answer, str) else ok(f"the model hub {endpoint} answers")
        )
        return
    for kind, name, secret in needs.hub:
        token = reveal(secret, f"{'model' if kind == 'model' else 'data'}.token") if secret else get_token()
        answer = machine.get(f"{endpoint}/api/{kind}s/{name}", token=token or "")
        if isinstance(answer, str):
            yield _silent(endpoint, answer)
            return  # the next one would wait as long
        if answer in (401, 403, 404):
            text = f"{endpoint} does not hand out the {kind} {name} (status {answer})"
            yield problem(text, "check its name, accept its terms on its page, and log in: hf auth login")
        elif answer >= 400:
            yield warning(f"{endpoint} answers {answer} when asked for {name}", "try again later")
        else:
            yield ok(f"{endpoint} hands out the {kind} {name}")


def _silent(endpoint: str, why: str) -> Finding:
    text = f"the model hub {endpoint} does not answer ({why}): what is not here yet cannot be fetched from it"
    return warning(text, "set HF_ENDPOINT to a mirror, or name a local directory (model.base: ./DIRECTORY)")
