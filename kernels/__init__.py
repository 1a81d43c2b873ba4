"""The compiled loops: one CPU kernel for each op, with its CUDA twin where there is one. Imports nothing of ours."""
