"""What several tests need: small tokenizers and small models, made on the spot."""
