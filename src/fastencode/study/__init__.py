"""What a study asks of features and responses: alignment, ceilings, significance, figures, the page."""
