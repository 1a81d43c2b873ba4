"""Long commands as stages: made once, here or in other processes, whole or not at all; callable from a notebook."""
