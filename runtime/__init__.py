"""Frames in, verdicts out: sources, engines, post-process, sinks. Never imports torch."""
