"""octavo: a language model's whole life on the machine you have."""
