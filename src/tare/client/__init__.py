"""A small REST client for the Engine API, standard library only."""
