"""What survives a crash: files written whole or not at all, caches that are checked; and the YAML of files."""
