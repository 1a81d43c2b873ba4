"""What probes are made of: tasks and their labels, leaks, folds, classifiers, metrics, tables."""
