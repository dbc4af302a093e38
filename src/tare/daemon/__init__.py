"""The composition root: configuration, listeners, restore and shutdown."""
