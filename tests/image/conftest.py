"""The synthetic image and the container runtimes that tests of images and of containers share."""

from support.images import image, inputs, loaded, make_inputs, runtime

__all__ = ["runtime", "image", "inputs", "loaded", "make_inputs"]
