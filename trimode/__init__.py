"""Tri-mode language models: autoregressive, block diffusion and self-speculation from one checkpoint."""

__version__ = "0.1.0"
