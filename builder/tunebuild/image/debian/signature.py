"""Believes an index only if one of the expected keys signed it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunebuild.errors import fail

_DEBIAN = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TRUSTED = Path("/etc/apt/trusted.gpg.d")
_ARMOUR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


def verified(signed: bytes, signed_by: Sequence[str], shown: str) -> str:
    """The text of a clear-signed index: what the signature covers, and nothing around it.

    Args:
        signed: the file as it came.
        signed_by: paths of keyrings (binary, or armoured with the suffix ``.asc``), or armoured keys
            themselves; empty for Debian's own keyring and the ones that apt trusts.
        shown: where it came from, for messages.

    Raises:
        TunebuildError: ``no-gpgv``: gpgv or the keyring is missing; ``bad-signature``.
    """
    gpgv = shutil.which("gpgv")
    if gpgv is None:
        raise _missing(shown, "gpgv")
    with tempfile.TemporaryDirectory(prefix="tunebuild-") as directory:
        source, text = Path(directory, "InRelease"), Path(directory, "Release")
        source.write_bytes(signed)
        argv = [gpgv, "--homedir", directory, "--status-fd", "1", "--output", str(text)]
        for keyring in _keyrings(signed_by, Path(directory), shown):
            argv += ["--keyring", str(keyring)]
        done = subprocess.run([*argv, str(source)], capture_output=True, text=True, check=False)
        status = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")]
        # An index is often signed by an older and a newer key; apt, too, asks for one that it knows.
        if "VALIDSIG" not in status or "BADSIG" in status or not text.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("gpgv: ")
            raise fail(
                "bad-signature",
                f"{shown} is not signed by a key that this machine trusts: {reason}",
                "apt-get install --reinstall debian-archive-keyring, or look at what the mirror serves",
                path="image.base",
            )
        return text.read_text("utf-8")


def _keyrings(signed_by: Sequence[str], scratch: Path, shown: str) -> Iterator[Path]:
    if not signed_by:
        trusted = sorted(p for p in _TRUSTED.glob("*") if p.suffix in (".gpg", ".asc"))
        signed_by = [str(p) for p in (_DEBIAN, *trusted) if p.is_file()]
        if not signed_by:
            raise _missing(shown, str(_DEBIAN))
    for number, entry in enumerate(signed_by):
        armoured = entry
        if not entry.startswith(_ARMOUR):
            path = Path(entry)
            if not path.is_file():
                raise _missing(shown, entry)
            if path.suffix != ".asc":
                yield path
                continue
            armoured = path.read_text("utf-8")
        binary = scratch / f"{number}.gpg"
        binary.write_bytes(_without_armour(armoured, shown))
        yield binary


def _without_armour(text: str, shown: str) -> bytes:
    # gpgv reads binary keyrings only. RFC 9580, section 6.2: headers, empty line, base64, checksum.
    try:
        body = text.split(_ARMOUR, 1)[1].split("-----END", 1)[0].replace("\r", "").split("\n\n", 1)[1]
        return base64.b64decode("".join(line for line in body.splitlines() if not line.startswith("=")))
    except (IndexError, ValueError):
        message = f"a key that may sign {shown} cannot be read"
        raise fail("bad-key", message, "look at Signed-By in /etc/apt", path="image.base") from None


def _missing(shown: str, what: str) -> Exception:
    return fail(
        "no-gpgv",
        f"cannot check the signature of {shown}: there is no {what}",
        "apt-get install gpgv debian-archive-keyring",
        path="image.base",
    )
