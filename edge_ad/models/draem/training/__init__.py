"""Training DRAEM: good pictures in, the two networks out."""
