"""Readers of what labs have on disk, and a world whose truth is known."""
