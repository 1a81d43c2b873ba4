"""Responses through a plan: the loop over tiles of voxels, predictions, moments, scores, choice."""
