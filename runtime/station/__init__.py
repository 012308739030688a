"""A line with its doors to the outside, put together from one file.

`settings` is what `line.yaml` may say, `file` reads it, `check` holds it against the world, `lanes` makes cameras of
it and `run` the whole; `hints` are what the user is told, `reload` reads thresholds again while it runs.
"""
