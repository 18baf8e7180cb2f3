"""Proves that an image, or an endpoint, speaks the prompt that was trained on and knows the answers."""
