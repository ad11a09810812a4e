"""Measures of a trained model, and the procedural tasks it is measured on."""
