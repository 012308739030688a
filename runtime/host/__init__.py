"""This machine and this process: folders, signals, memory, messages."""
