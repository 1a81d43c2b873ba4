"""What scikit-learn needs to take the solvers and time kernels: estimators and transformers, loaded when asked for."""
