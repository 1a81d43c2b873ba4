"""Stimulus time to scan time: Lanczos resampling, hemodynamic responses, delays, cleaning."""
