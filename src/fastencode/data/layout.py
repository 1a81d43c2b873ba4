"""Rows of responses in the layout of ds003020. Imports nothing, so that settings may know it."""

__all__ = ["FIRST_ROW", "TRIMMED_ROWS"]

FIRST_ROW = 5
"""TRs from the beginning of the sound to that of response row 0."""
TRIMMED_ROWS = 20
"""Rows of responses fewer than TRs of a story: 10 at the start, 5 that the features never have, 5 at the end."""
