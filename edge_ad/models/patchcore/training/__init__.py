"""Fitting a bank: features of all good pictures, and those of them that stay."""
