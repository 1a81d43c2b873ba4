"""Weightings of bands: candidates, and penalties of each voxel's own."""
