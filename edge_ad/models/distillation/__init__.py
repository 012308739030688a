"""A small backbone learns the features of a larger one, whose run is the teacher; the head on them stays.

`options` is what it can be told, `layers` which of its layers imitate what, `lessons` the pictures that it learns from,
`imitation` the steps, `train` all of it from a teacher's run to a student's.
"""
