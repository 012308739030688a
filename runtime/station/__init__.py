"""A line with its doors to the outside, put together from one file, checked and run."""
