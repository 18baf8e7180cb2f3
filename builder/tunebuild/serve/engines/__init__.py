"""Engines: token ids in, token ids out. They never see text or templates."""
