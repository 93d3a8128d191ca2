"""QLoRA training: model preparation, the Trainer, its callbacks and the run as a whole."""
