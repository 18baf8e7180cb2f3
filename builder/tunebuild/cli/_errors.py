"""The one place where errors become text and an exit code."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable

import click

from tunebuild.cli._echo import echo
from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.printable import printable, printable_line

_EXIT_INTERRUPTED = 130


def run_reporting_errors(main: Callable[[], None]) -> int:
    """Call ``main``; print what went wrong on stderr and return the exit code."""
    try:
        main()
    except TunebuildError as error:
        for diagnostic in error.diagnostics:
            _print(diagnostic)
        return error.exit_code
    except click.ClickException as error:
        message = io.StringIO()  # names what was typed, as it was typed
        error.show(message)
        echo(message.getvalue(), err=True, nl=False)
        return 1  # not click's 2, which is what 'plan' says where there is work
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the next build goes on from the last checkpoint", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        from tunebuild.extras import explained

        if (found := explained(error)) is None:
            raise
        _print(found.diagnostics[0])
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        _print(_storage_problem(error))
        return 1
    return 0


def _print(diagnostic: Diagnostic) -> None:
    position, path = printable_line(str(diagnostic.position or "")), printable_line(diagnostic.path)
    head = " ".join(
        part
        for part in (click.style(position, bold=True), click.style(path, fg="cyan"))
        if click.unstyle(part)
    )
    label = click.style("error", fg="red", bold=True)
    click.echo(f"{head or label}: {printable(diagnostic.text)}", err=True)


def _storage_problem(error: OSError) -> Diagnostic:
    where = f" ({error.filename})" if error.filename else ""
    hints = {
        errno.ENOSPC: "free some space, or choose another place with --store; finished stages are kept",
        errno.EDQUOT: "free some space, or choose another place with --store; finished stages are kept",
    }
    return Diagnostic("storage", f"{error.strerror}{where}", hints.get(error.errno or 0, ""))
