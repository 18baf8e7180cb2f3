"""The image's operating system: Debian packages, without root."""
