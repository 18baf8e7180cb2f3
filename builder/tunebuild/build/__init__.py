"""Builds a spec: its stages, running them, planning them, locking what they fetch."""
