"""Tests are claims about trimode; the tree mirrors the package."""
