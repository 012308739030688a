"""One frame, one verdict."""
