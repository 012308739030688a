"""A small discriminator on patch features of a frozen backbone: what two families have in common."""
