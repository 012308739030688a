"""Which configuration suits a product: a few are tried on its good pictures, against defects that are drawn on some."""
