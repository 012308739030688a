"""SimpleNet: frozen features, noise on them, one small discriminator (Liu et al., arXiv 2303.15140)."""
