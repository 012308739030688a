"""From a trained network to a bundle: graph, check, formats."""
