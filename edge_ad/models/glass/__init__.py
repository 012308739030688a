"""GLASS: frozen features, one small discriminator (Chen et al., arXiv 2407.09359)."""
