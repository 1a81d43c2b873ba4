"""Stimulus time to scan time: Lanczos resampling, haemodynamic responses, delays, cleaning."""
