"""A study in one file: models before and after tuning and their controls, on brains and on probes, with what was expected of them."""
