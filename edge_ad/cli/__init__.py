"""The command line. One module for each command, loaded when it is called."""
