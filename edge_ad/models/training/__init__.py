"""What the training of every family shares: a run's folder, its pictures, its epochs, and which of them is kept.

`session` runs a training from options to a finished folder. A family brings a recipe: its network, its losses and its
step.
"""
