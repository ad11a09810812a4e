"""Networks and their checkpoints: one file per family, found by the `model_type` of config.json."""
