"""What a machine has of all that edge-ad can use, what is missing there, and the command that brings it.

Nothing here imports a library that it reports on: that could hang, or end the process. Such a library is loaded by a
process of its own, see `probes`. A subject is a module with a function from a `Machine` to checks.
"""
