"""Runs plans on a GPU: memory, streams, graphs, and a process that takes over."""
