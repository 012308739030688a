"""Training of DiffusionAD: what its networks learn from, and their step."""
