"""The models, each read top to bottom, in PyTorch: what trains, and the float twin of the native step."""
