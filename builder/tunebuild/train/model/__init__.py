"""The model as it is trained: loading, adapter, attention and layers."""
