"""Where files come from: repositories on a hub."""
