"""What survives a crash: files and folders that are written whole or not at all, and caches that are checked."""
