"""SIGINT, SIGTERM and SIGHUP, from the first line of a command to the last."""
