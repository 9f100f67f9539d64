"""What guesses ahead for a model, wired, and what a draft head learns from (docs/speculation.md)."""
