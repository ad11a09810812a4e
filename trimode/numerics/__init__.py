"""Pure functions from tensors to tensors. No model, no request, no clock."""
