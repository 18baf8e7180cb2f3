"""Folds the adapter into the weights."""
