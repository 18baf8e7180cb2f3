"""Resolves what a spec names to content: models, wheels, packages."""
