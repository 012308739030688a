"""The demonstration: a bundle small enough to ship, and the simulated line it judges."""
