"""A world whose truth is known, in the layouts of real data sets: stories, speech and brains."""
