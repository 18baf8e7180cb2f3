"""``python -m tunebuild``."""

from tunebuild.cli import main

main()
