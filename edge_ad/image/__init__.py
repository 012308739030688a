"""Pixels, from a frame to the model's grid and back."""
