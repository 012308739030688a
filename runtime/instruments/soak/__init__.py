"""A simulated line under injected faults, and an account of it that trusts none of the line's own counters.

`faults` are kinds of misfortune, `sources`, `engine` and `sinks` the wrappers in which they strike; `books` holds
what every wrapper saw against every record; `soak` runs round after round and says which invariants held.
"""
