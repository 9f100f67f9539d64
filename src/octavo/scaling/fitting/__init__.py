"""From runs to laws: Chinchilla's three approaches, Kaplan's forms, repetition, and how far to trust them."""
