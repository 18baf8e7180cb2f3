"""Plans and assembles the container image. Imports no client of a runtime or registry."""
