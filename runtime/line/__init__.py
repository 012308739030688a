"""Cameras, deadlines, records: frames of all cameras through one engine to all sinks."""
