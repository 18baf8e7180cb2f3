"""A click group that imports a verb's module only when that verb is called, so ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from tunebuild.cli._examples import epilog_of


class LazyGroup(click.Group):
    """Verbs by name, each ``(module, one-line help)``; the module holds a command called ``command``.

    ``extras`` names what a verb cannot do without; a verb that needs more for some of its arguments asks for
    that itself.
    """

    def __init__(
        self, verbs: Mapping[str, tuple[str, str]], help_text: str, extras: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__(name="tunebuild", help=help_text)
        self.verbs = verbs
        self.extras = extras

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order in which one meets them."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb; its help ends with two examples."""
        if cmd_name not in self.verbs:
            return None
        command: click.Command = import_module(self.verbs[cmd_name][0]).command
        command.epilog = epilog_of(cmd_name)
        call, extras = command.callback, self.extras.get(cmd_name)
        if call and extras and not hasattr(call, "checks_extras"):  # it may be called twice
            command.callback = _after_check(call, cmd_name, extras)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in self.verbs.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest verb for a misspelt one."""
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.verbs, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"there is no verb '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)


def _after_check(call: Callable[..., Any], verb: str, extras: Sequence[str]) -> Callable[..., Any]:
    """What a verb does, once it is known that its packages are there."""

    def checked(*arguments: Any, **named: Any) -> Any:
        from tunebuild.extras import require

        require(*extras, what=f"'{verb}'")
        return call(*arguments, **named)

    checked.checks_extras = True  # type: ignore[attr-defined]
    return checked
