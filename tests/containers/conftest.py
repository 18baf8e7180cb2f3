"""The synthetic image and the container runtimes that tests of images and of containers share."""

from support.images import engine, image, inputs, loaded, make_inputs

__all__ = ["engine", "image", "inputs", "loaded", "make_inputs"]
