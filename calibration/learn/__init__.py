"""Putting right what a detector gets wrong: patches of good pictures that it shall know from now on."""
