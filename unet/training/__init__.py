"""Targets, losses, augmentation, patch sampling, the training loop and its checkpoints."""
