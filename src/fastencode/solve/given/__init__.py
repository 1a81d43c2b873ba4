"""The arguments of a fit, checked once when they come in."""
