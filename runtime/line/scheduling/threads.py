"""What the threads of a line have in common."""

from __future__ import annotations

from edge_ad.errors import one_line


def broken(thread: str, exc: BaseException) -> RuntimeError:
    """What a thread has died of that is no Exception, as one: raised as it is, it might end the process with code 0."""
    failure = RuntimeError(f"thread {thread} was ended by {type(exc).__name__}: {one_line(exc)}")
    failure.__cause__ = exc
    return failure
