"""What is said of a frame, and between frames."""
