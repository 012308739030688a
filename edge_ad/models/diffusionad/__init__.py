"""DiffusionAD: take noise off a picture in one step, and tell the two apart (Zhang et al., arXiv 2303.08730)."""
