"""A base layer from Debian packages: Python and what it needs, without root and without an engine."""
