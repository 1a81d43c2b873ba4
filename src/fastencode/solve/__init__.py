"""Problem → plan → voxel tiles → fit: the ridge solvers. NumPy first; never torch, transformers, scikit-learn or matplotlib."""
