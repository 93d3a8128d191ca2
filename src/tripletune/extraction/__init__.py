"""Triplets from texts with a fine-tuned model: constrained, grounded, with confidence."""
