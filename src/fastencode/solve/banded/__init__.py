"""Banded ridge: each band of features has its own weight in the penalty, for each voxel the one that predicts best."""
