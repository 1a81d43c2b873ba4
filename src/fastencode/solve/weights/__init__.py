"""From coordinates to weights."""
