"""Training SimpleNet: normal pictures in, a checkpoint of the official format out."""
