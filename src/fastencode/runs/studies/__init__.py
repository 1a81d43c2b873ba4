"""Studies: one file describes models, tuning, controls, encoding models, probes and expectations; one command runs it."""
