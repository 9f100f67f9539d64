"""What turns a model and batches into a trained model: losses, optimizers, schedules, the loop."""
