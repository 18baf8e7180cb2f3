"""``tunebuild chat``."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, refuse_spec_options, set_option, store_option
from tunebuild.cli._serving import endpoint, endpoint_runtime_option, ready_option
from tunebuild.client.chat import Chat
from tunebuild.errors import TunebuildError
from tunebuild.extras import require

_HELP = """\
/system TEXT   set the system message; without TEXT, the model's own
/prompt        show the exact prompt so far
/reset         forget the conversation
/help          this
/quit          leave, as Ctrl-D does; Ctrl-C stops an answer"""


@click.command("chat")
@click.argument("target", metavar="SPEC|URL")
@click.option("--system", default="", help="System message to begin with.")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), help="Of sampling; the endpoint's default if left out."
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
@click.option(
    "--key-env",
    default="TUNEBUILD_API_KEY",
    show_default=True,
    metavar="NAME",
    help="Variable that holds the API key, if the endpoint asks for one.",
)
@endpoint_runtime_option
@ready_option
@set_option
@lock_option
@store_option
def command(
    target: str,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
    key_env: str,
    runtime: str,
    ready_within: float,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Talk to the endpoint at URL, or to that of SPEC, which is built and started first.

    Answers appear as they are made. Lines that begin with / are commands; /help lists them.
    """
    given = {"temperature": temperature, "max_tokens": max_tokens}
    settings = {name: value for name, value in given.items() if value is not None}
    with ExitStack() as running:
        url = target
        if target.startswith(("http://", "https://")):
            refuse_spec_options(target, overrides, lock_file)
        else:
            require("train", what="'chat' with a spec")
            from tunebuild.cli._building import build_spec

            built = build_spec(Path(target), store, overrides, lock_file=lock_file)
            url = running.enter_context(
                endpoint(built, runtime, "127.0.0.1", 0, ready_within, quiet=True, tagged=False)
            ).url
        root = url.rstrip("/").removesuffix("/v1")
        chat = Chat(root, os.environ.get(key_env, ""), settings, system)
        echo(f"{chat.model} at {root}; /help lists the commands", err=True)
        _talk(chat)


def _talk(chat: Chat) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() its history and editing
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            echo(err=True)
            return
        except KeyboardInterrupt:
            echo("\nCtrl-D or /quit leaves", err=True)
            continue
        if line.strip() == "/quit":
            return
        try:
            _do(chat, line)
        except TunebuildError as error:
            # A conversation outlives a refused question, but nobody reads on in a pipe.
            if not sys.stdin.isatty():
                raise
            echo(str(error), err=True)


def _do(chat: Chat, line: str) -> None:
    word, _, rest = line.strip().partition(" ")
    if not word:
        return
    if word == "/reset":
        chat.turns.clear()
        echo("forgotten", err=True)
    elif word == "/system":
        chat.system = rest.strip()
        echo("system message set" if chat.system else "the model's own system message", err=True)
    elif word == "/prompt":
        echo(chat.prompt() if chat.turns or chat.system else "nothing was said yet")
    elif word.startswith("/"):
        echo(_HELP if word == "/help" else f"no such command: {word}\n{_HELP}", err=True)
    else:
        _answer(chat, line)


def _answer(chat: Chat, question: str) -> None:
    pieces = chat.answer(question)
    try:
        for piece in pieces:
            echo(piece, nl=False)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
        echo(" (stopped)", nl=False, err=True)
    finally:
        echo()
