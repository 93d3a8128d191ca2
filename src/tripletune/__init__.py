"""TripleTune: QLoRA fine-tuning of ChatGLM for knowledge triplets."""

__version__ = "0.1.0"

from tripletune.models.registration import register_when_imported as _register_when_imported

_register_when_imported()
