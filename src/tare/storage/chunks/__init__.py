"""Older versions of large files: kept as what differs from the next one, out of sight of who reads a layer."""
