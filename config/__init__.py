"""The configuration classes of the training scripts."""
