"""What examines a station; nothing at run time needs it."""
