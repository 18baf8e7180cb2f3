"""``tunebuild doctor``: what a machine can do, one check a file."""
