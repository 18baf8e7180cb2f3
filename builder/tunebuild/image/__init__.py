"""Plans and assembles the container image. Importing this package imports no engine and no network client."""
