"""Bridges, address management, port publishing and the files that name a container's hosts."""
