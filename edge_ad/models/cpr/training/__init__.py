"""Training CPR's metric networks: good pictures and drawn defects in, one self-contained checkpoint out."""
