"""How well scores and maps tell defective from good, in NumPy alone."""
