"""What holds a generation to a form: the interface, grammars behind it, and healed prompts."""
