"""Decisions that are taken on data: thresholds."""
