"""A small discriminator on patch features of a frozen backbone: what GLASS and SimpleNet have in common."""
