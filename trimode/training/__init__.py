"""From text to weights. Shares spans, numerics, models and the checkpoint format with serving, and nothing else."""
