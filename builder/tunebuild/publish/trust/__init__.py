"""What lets somebody else check an image: statements about it, signatures, and the walk back to the spec."""
