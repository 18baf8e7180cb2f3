"""A click group that imports a verb's module only when that verb is called, so ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from tunebuild.cli._examples import epilog_of


class LazyGroup(click.Group):
    """Verbs by name, each ``(module, one-line help)``; the module holds a command called ``command``."""

    def __init__(self, verbs: Mapping[str, tuple[str, str]], help_text: str) -> None:
        super().__init__(name="tunebuild", help=help_text)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order in which one meets them."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb; its help ends with two examples."""
        if cmd_name not in self.verbs:
            return None
        command: click.Command = import_module(self.verbs[cmd_name][0]).command
        command.epilog = epilog_of(cmd_name)
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
