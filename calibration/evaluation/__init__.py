"""How good a bundle is on pictures that are labelled, and which threshold follows."""
