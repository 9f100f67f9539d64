"""The blocks that models are built from, each once, in PyTorch.  Training and the reference use them."""
