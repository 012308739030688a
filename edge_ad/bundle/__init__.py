"""The artifact on disk: its files, its manifest, and what a manifest says of a model."""
