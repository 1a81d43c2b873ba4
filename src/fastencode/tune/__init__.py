"""Brain-tuning: clips and responses in, a tuned checkpoint out. Never imports the solvers."""
