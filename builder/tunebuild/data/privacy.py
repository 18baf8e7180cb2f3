"""Finds secrets and personal data in rows, which a model could be made to repeat to anybody.

Secrets by the patterns of those detect-secrets plugins that know the form of a provider's tokens. Its checks
of entropy and of words such as "password" stay off: in prose they are wrong nearly always. Personal data by
form and check digit: e-mail addresses, telephone numbers with a country code (phonenumbers), card numbers and
IBANs (python-stdnum). Names and postal addresses are not looked for. Cheap patterns sort out the texts that
can hold neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_letters, digits
from typing import Any, Literal

from tunebuild.errors import fail
from tunebuild.extras import install_command

Class = Literal["secret", "personal"]

# What every token of these plugins has: so many of these characters in a row, or one of the words. Made one
# character, a row of them is found many times faster than by a pattern.
_TOKEN_BYTES = bytes(ord("x") if chr(b) in f"{ascii_letters}{digits}_-+/=.:@" else 0 for b in range(256))
_TOKEN_LIKE = b"x" * 16
_WORDS = ("PRIVATE KEY", "://")
_PLUGINS = (
    ("aws", "AWSKeyDetector"),
    ("azure_storage_key", "AzureStorageKeyDetector"),
    ("basic_auth", "BasicAuthDetector"),
    ("discord", "DiscordBotTokenDetector"),
    ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"),
    ("jwt", "JwtTokenDetector"),
    ("mailchimp", "MailchimpDetector"),
    ("npm", "NpmDetector"),
    ("openai", "OpenAIDetector"),
    ("private_key", "PrivateKeyDetector"),
    ("pypi_token", "PypiTokenDetector"),
    ("sendgrid", "SendGridDetector"),
    ("slack", "SlackDetector"),
    ("square_oauth", "SquareOAuthDetector"),
    ("stripe", "StripeDetector"),
    ("telegram_token", "TelegramBotTokenDetector"),
    ("twilio", "TwilioKeyDetector"),
)
# Providers that the library does not know.
_MORE = (
    ("Anthropic Key", re.compile(r"\bsk-ant-[A-Za-z0-9_-]{24,}")),
    ("Google API Key", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("Hugging Face Token", re.compile(r"\bhf_[A-Za-z0-9]{30,}")),
)
_TOKEN_PARTS = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=+/-]+)*")
# As documentation writes them.
_PLACEHOLDER = re.compile(r"(?i)example|^(user|username|pass|passwd|password|secret|token|key)$|^[<{$%\[*]")

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})\b")
# Who asks for a URL, and the password, perhaps. Together with the host it would look like an address.
_USER = re.compile(r"://[^\s/?#,;<>()'\"]+@")
_RESERVED = re.compile(r"(?i)(^|\.)(example\.(com|net|org)|example|test|invalid|localhost|local)$")
_PHONE = re.compile(r"\+\d[\d ()./-]{6,18}\d")
# Cards and IBANs have eight digits in a row, or in two groups. Any digit of Unicode is one here.
_GROUPS = re.compile(r"\d\d{3}[ -]?\d{4}")
_DIGIT_BYTES = bytes(ord("0") if chr(b) in digits else ord("-") if chr(b) in " -" else 0 for b in range(256))
_ASCII_GROUPS = (b"00000000", b"0000-0000")
_CARD = re.compile(r"(?<![\dA-Za-z])[2-6]\d{3}(?:[ -]?\d){8,14}\d(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))")
# Characters of which an excerpt is made: masking shortens a text, but not so many to an excerpt's length.
_LOOKED_AT = 1 << 16


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of a text.

    Attributes:
        found: whether it is a secret or personal.
        kind: what it is, in words.
        text: the piece itself. For no eyes: print :attr:`masked`.
    """

    found: Class
    kind: str
    text: str

    @property
    def masked(self) -> str:
        """Enough to find it by, and too little to use it."""
        if self.kind == "Private Key":
            return f"{self.text} ..."
        shown = self.text[: 4 if len(self.text) >= 16 else 2]
        return f"{shown}... ({len(self.text)} characters)"


def scan(text: str, *, secrets: bool = True, personal: bool = True) -> list[Found]:
    """What is found in a text.

    Raises:
        TunebuildError: the libraries are not installed.
    """
    found = list(_secrets(text)) if secrets else []
    if personal:
        found += _personal(text)
    return found


def mask(text: str) -> str:
    """A text with all that is found in it masked."""
    for found in scan(text):
        if found.kind == "Private Key":
            text = text.partition(found.text)[0] + found.masked
        text = text.replace(found.text, found.masked)
    return text


def masked_start(text: str, length: int) -> str:
    """The first characters of a row's text, cut only after what is found in it has been masked.

    Escapes of JSON are undone: a token that stands behind a line's end would seem to begin with an n.
    """
    if len(text) > _LOOKED_AT:
        # What stands across this cut would be half a token, which no pattern knows.
        text = re.sub(r"\S+\Z", "", text[:_LOOKED_AT])
    return mask(_ESCAPE.sub(_character, text))[:length]


def _character(escape: re.Match[str]) -> str:
    if not escape[1]:
        return " " if escape[2] in "nrtbf" else escape[2]
    character = chr(int(escape[1], 16))
    return "\ufffd" if "\ud800" <= character <= "\udfff" else character


def versions(classes: Sequence[Class]) -> dict[str, str]:
    """Versions of the libraries that decide what is found."""
    from importlib.metadata import version

    names = {"secret": ("detect-secrets",), "personal": ("phonenumbers", "python-stdnum")}
    return {name: version(name) for found in classes for name in names[found]}


def _secrets(text: str) -> Iterator[Found]:
    run = _TOKEN_LIKE in text.encode(errors="replace").translate(_TOKEN_BYTES)
    if not (run or any(word in text for word in _WORDS)):
        return
    seen: set[str] = set()
    for kind, pattern in _patterns():
        for match in pattern.finditer(text):
            secret = match[1] if kind == "Basic Auth Credentials" else match[0]
            if kind == "JSON Web Token":
                # The library's pattern leaves out the signature.
                secret = _TOKEN_PARTS.match(text, match.start())[0]  # type: ignore[index]
                if not _is_token(secret):
                    continue
            if secret in seen or _is_placeholder(secret):
                continue
            seen.add(secret)
            yield Found("secret", kind, secret)


def _is_placeholder(secret: str) -> bool:
    return _PLACEHOLDER.search(secret) is not None or len(set(secret[-12:])) < 4


def _personal(text: str) -> Iterator[Found]:
    if "@" in text:
        for match in _EMAIL.finditer(_USER.sub("://", text)):
            if not _RESERVED.search(match[1]):
                yield Found("personal", "e-mail address", match[0])
    if "+" in text:
        for match in _PHONE.finditer(text):
            if _is_phone(match[0]):
                yield Found("personal", "telephone number", match[0])
    if _may_hold_groups(text):
        for match in _CARD.finditer(text):
            if _stdnum().luhn.is_valid(re.sub("[ -]", "", match[0])):
                yield Found("personal", "card number", match[0])
        for match in _IBAN.finditer(text):
            # A word in capitals may stand behind it.
            words = match[0].split(" ")
            tries = [" ".join(words[:count]) for count in range(len(words), 0, -1)]
            if iban := next((t for t in tries if _stdnum().iban.is_valid(t)), ""):
                yield Found("personal", "IBAN", iban)


def _may_hold_groups(text: str) -> bool:
    if not text.isascii():
        return _GROUPS.search(text) is not None
    marked = text.encode().translate(_DIGIT_BYTES)  # the same, and many times faster
    return any(groups in marked for groups in _ASCII_GROUPS)


def _is_phone(text: str) -> bool:
    try:
        import phonenumbers
    except ModuleNotFoundError:
        raise _missing("phonenumbers") from None
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, None))
    except phonenumbers.NumberParseException:
        return False


@lru_cache(maxsize=1)
def _stdnum() -> Any:
    try:
        import stdnum.iban
        import stdnum.luhn
    except ModuleNotFoundError:
        raise _missing("python-stdnum") from None
    return stdnum


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Kinds and patterns; the plugins' own search gives only a part of some tokens."""
    from importlib import import_module

    try:
        plugins = [
            getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _PLUGINS
        ]
    except ModuleNotFoundError:
        raise _missing("detect-secrets") from None
    return (*((p.secret_type, pattern) for p in plugins for pattern in p.denylist), *_MORE)


def _is_token(text: str) -> bool:
    from detect_secrets.plugins.jwt import JwtTokenDetector

    return JwtTokenDetector.is_formally_valid(text)


def _missing(name: str) -> Exception:
    hint = install_command(("plan",)) + ", or say data.privacy: {secrets: off, personal: off}"
    return fail(
        "no-scanner", f"looking for secrets and personal data needs {name}", hint, path="data.privacy"
    )
