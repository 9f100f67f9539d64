"""What is trained: each task owns a model and its data, and the loop asks it for batches and losses."""
