"""Layers of Python packages, from wheels and without running an installer in the image."""
