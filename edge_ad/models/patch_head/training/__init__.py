"""What trainings of heads have in common: their options, their optimisers, and all of an epoch but its steps."""
