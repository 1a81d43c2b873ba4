"""From X alone: one decomposition, and the operators that predict every fold from it."""
