"""One YAML spec in, one verified container image of a fine-tuned language model out."""

__version__ = "0.1.0"
