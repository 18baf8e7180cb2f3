"""Asks a running endpoint, as any client would."""
