"""What depends on X only: one decomposition, and what predicts every fold from it."""
