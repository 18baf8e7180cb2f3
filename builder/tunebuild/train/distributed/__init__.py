"""What processes that train together share: gradients, or the parts of a sharded model."""
