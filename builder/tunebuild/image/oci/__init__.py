"""Layers, manifests and archives of the OCI image format."""
