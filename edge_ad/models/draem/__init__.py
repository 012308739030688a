"""DRAEM: reconstruct a picture without its defect, then tell the two apart (Zavrtanik et al., arXiv 2108.07610)."""
