"""``tunebuild train``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option


@click.command("train")
@spec_argument
@set_option
@lock_option
@store_option
def command(spec: Path, overrides: tuple[str, ...], lock_file: Path | None, store: Path) -> None:
    """Prepare SPEC's rows and train, as one of the processes that a launcher started.

    'tunebuild launch' renders what starts all of them. The first one prepares the rows and records what was
    trained; 'tunebuild build' finds it there and goes on.
    """
    from tunebuild.build.run import train
    from tunebuild.cli._building import opened
    from tunebuild.heavy_imports import heavy_imports

    with heavy_imports():
        from tunebuild.train.launch.together import Together

    together = Together()
    if together.rank:
        together.follow()
        return
    try:
        with opened(spec, store, overrides, lock_file=lock_file) as (pipeline, reporter):
            train(pipeline, reporter, together)
    finally:
        together.release()
