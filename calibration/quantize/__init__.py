"""Float graph and images → a graph with explicit Q/DQ, or with half precision."""
