"""``tunebuild run``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option
from tunebuild.cli._serving import endpoint, endpoint_runtime_option, ready_option
from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import require


@click.command("run")
@spec_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--ask", metavar="QUESTION", help="Ask one question, print the answer, and stop.")
@endpoint_runtime_option
@ready_option
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    host: str,
    port: int,
    ask: str | None,
    runtime: str,
    ready_within: float,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Start the endpoint of SPEC, building first what is not built yet.

    The endpoint speaks OpenAI's chat API below /v1. Stop it with Ctrl-C; running answers are finished. A
    server that ends by itself gives its exit status to this command.
    """
    if runtime == "none":
        require("serve", what="serving as a local process")
    from tunebuild.cli._building import build_spec
    from tunebuild.client.endpoint import ask_question

    built = build_spec(spec, store, overrides, lock_file=lock_file)
    try:
        with endpoint(built, runtime, host, port, ready_within, quiet=ask is not None) as running:
            echo(f"  ready   {running.url} after {running.ready_after:.1f} s ({running.runner})", err=True)
            if ask is not None:
                echo(ask_question(running.url, ask))
                return
            echo(_example(running.url, built.parts.settings.name), err=True)
            status = running.wait()
    except KeyboardInterrupt:
        echo("  stopped", err=True)
        raise TunebuildError((), exit_code=130) from None
    message = f"the server ended by itself, with status {status}"
    raise fail("server-ended", message, "its log, above, says why", exit_code=status)


def _example(url: str, model: str) -> str:
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"\n  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
