"""CPR: look up training pictures that look alike, then compare patches at the same place (arXiv 2308.06748)."""
