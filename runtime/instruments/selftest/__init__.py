"""Whether an engine computes on the user's own machine what the bundle means, and which way of doing it is fastest."""
