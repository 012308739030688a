"""Frames in, verdicts out. Never imports torch.

    host ─► sources ─┐
    engines ─► judge ┴─► sinks ─► line ─► http ─► station
                                       └─► instruments

A room imports those on its left alone; `tests/test_layering.py` holds that.
"""
