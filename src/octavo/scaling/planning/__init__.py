"""From data, machine, hours and evidence to the model that should be trained."""
