"""A study in one file: models before and after tuning and their controls, in brains and on probes, and what was expected."""
