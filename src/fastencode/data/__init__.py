"""Readers of what labs have on disk."""
