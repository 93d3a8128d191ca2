"""TripleTune: QLoRA fine-tuning of ChatGLM for knowledge triplets."""

__version__ = "0.1.0"
