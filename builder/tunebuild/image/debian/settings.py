"""What this machine's apt is told about reaching mirrors, so that we reach them in the same way."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

_LINE = re.compile(r'(?P<name>[^ ]+) "(?P<value>.*)";')


@dataclass(frozen=True, slots=True)
class AptSettings:
    """The few of apt's settings that matter here.

    Attributes:
        proxies: pairs of scheme and proxy URL; apt's win over those of the environment.
        check_valid_until: whether an index past its date is refused. Some snapshots of mirrors need it off.
    """

    proxies: tuple[tuple[str, str], ...] = ()
    check_valid_until: bool = True


def read_settings() -> AptSettings:
    """Ask ``apt-config``; the defaults where there is none."""
    program = shutil.which("apt-config")
    if program is None:
        return AptSettings()
    done = subprocess.run([program, "dump"], capture_output=True, text=True, check=False)
    return parse_settings(done.stdout)


def parse_settings(dump: str) -> AptSettings:
    """Read the output of ``apt-config dump``."""
    values = {m["name"].lower(): m["value"] for m in map(_LINE.fullmatch, dump.splitlines()) if m}
    proxies = tuple(
        (scheme, value)
        for scheme in ("http", "https")
        if (value := values.get(f"acquire::{scheme}::proxy", "")) and value.upper() != "DIRECT"
    )
    checked = values.get("acquire::check-valid-until", "true").lower()
    return AptSettings(proxies, checked not in ("false", "no", "off", "0"))
