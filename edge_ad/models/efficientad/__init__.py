"""EfficientAD: a student and an autoencoder imitate a small teacher (Batzner et al., arXiv 2303.14535)."""
