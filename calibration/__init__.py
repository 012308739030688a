"""Decisions that are taken on data.

`evaluation` measures a bundle on labelled pictures and chooses its threshold; `agreement` says how far two models
differ in those terms; `quantize` makes the faster model and holds it to that.
"""
