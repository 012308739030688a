"""Graphs are read and checked here, by code of our own, before an engine sees them.

`check` is the entrance. `wire` reads protobuf, `model` what ONNX writes in it, `operators` says which operators graphs
may hold, and the modules with rules work out what each one gives, so that nothing is left to an
engine's care.
"""
