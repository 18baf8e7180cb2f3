"""What an installation has: which packages each extra brings, and how to add one to this installation.

The core installs in seconds and has no torch. A verb that needs more says so before it does anything else.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec

from tunebuild import resources
from tunebuild.errors import TunebuildError, fail

_PLAN = (
    *("datasets", "detect_secrets", "huggingface_hub", "numpy", "packaging", "phonenumbers", "pyarrow"),
    *("rensa", "stdnum", "urllib3", "zstandard"),
)
#: By extra: the modules that it brings. What several bring is looked for in the order of these lines.
MODULES: dict[str, tuple[str, ...]] = {
    "image": ("cryptography", "urllib3"),
    "plan": _PLAN,
    "docker": ("docker",),
    "train": (
        *_PLAN,
        *(
            "accelerate",
            "bitsandbytes",
            "cryptography",
            "cyclonedx",
            "numba",
            "packageurl",
            "peft",
            "safetensors",
            "torch",
            "torchmetrics",
            "transformers",
        ),
        "trl",
    ),
    "serve": (
        "fastapi",
        "httptools",
        "llguidance",
        "prometheus_client",
        "safetensors",
        "torch",
        "transformers",
        "uvicorn",
        "uvloop",
    ),
    "export": ("compressed_tensors",),
    "lm-eval": ("lm_eval",),
}

#: Distributions whose names are not those of their modules.
DISTRIBUTIONS = {
    "cyclonedx": "cyclonedx-python-lib",
    "packageurl": "packageurl-python",
    "stdnum": "python-stdnum",
}

_SHOWN = 3


def is_there(module: str) -> bool:
    """Whether a top-level module could be imported; it is not."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # something stands in its place that is no module
        return False


def require(*extras: str, what: str) -> None:
    """Refuse what needs extras that are not here.

    Args:
        extras: names of extras.
        what: what needs them, as the beginning of a sentence.

    Raises:
        TunebuildError: ``not-installed``, with the command that installs what is missing.
    """
    absent = {x: [m for m in MODULES[x] if not is_there(m)] for x in extras}
    missing = list(dict.fromkeys(module for modules in absent.values() for module in modules))
    if missing:
        raise _missing(what, missing, [extra for extra, modules in absent.items() if modules])


def explained(error: ModuleNotFoundError) -> TunebuildError | None:
    """An import that failed, as what to install; ``None`` where it is not about a package of an extra."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if module in modules), None)
    if extra is None or is_there(module):  # then it is broken, not absent
        return None
    return _missing("this", [module], [extra])


def install_command(extras: Iterable[str]) -> str:
    """What adds extras to this installation, from where it was installed from."""
    names = ",".join(extras)
    url, editable = _origin()
    if editable:
        return f"pip install -e {shlex.quote(f'{url}[{names}]')}"
    return f"pip install {shlex.quote(f'tunebuild[{names}]' + (f' @ {url}' if url else ''))}"


def address() -> str:
    """Where anybody could install this tunebuild from; empty where only this machine can reach that."""
    url, _ = _origin()
    return "" if url.startswith(("/", "file:")) else url


def library_version(name: str) -> str:
    """Version of a library that a build would compute with.

    What is not installed, as where a build is only planned, is taken in the version of constraints.txt.
    Empty if it names none.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return _constraints().get(name, "")


@cache
def _constraints() -> dict[str, str]:
    lines = resources.path("constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): pinned.split()[0] for name, _, pinned in pairs}


def _missing(what: str, modules: list[str], extras: list[str]) -> TunebuildError:
    names = [DISTRIBUTIONS.get(module, module).replace("_", "-") for module in modules]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    which = "the extra " + " and ".join(f"'{extra}'" for extra in extras)
    message = f"{what} needs {shown}, which {verb} not installed"
    return fail("not-installed", message, f"{which} brings {them}: {install_command(extras)}")


def _origin() -> tuple[str, bool]:
    """The address that pip recorded (PEP 610), and whether a checkout is used as it stands."""
    try:
        recorded = distribution("tunebuild").read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    if not recorded:
        return "", False
    found = json.loads(recorded)
    url = str(found["url"])
    if found.get("dir_info", {}).get("editable"):
        return url.removeprefix("file://"), True
    if git := found.get("vcs_info"):
        return f"{git['vcs']}+{url}@{git.get('requested_revision') or git['commit_id']}", False
    return url, False
