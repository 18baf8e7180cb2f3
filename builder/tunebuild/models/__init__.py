"""Base models: their files, their positions and what their weights' headers say."""
