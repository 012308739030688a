"""Training of EfficientAD: a student and an autoencoder learn what a teacher says of good pictures (section 3)."""
