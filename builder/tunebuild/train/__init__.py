"""Trains the adapter."""
