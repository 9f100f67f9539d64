"""A ladder of small models, run so that no kill, full disk or wrong clock loses or repeats a run."""
