"""The only room with REST paths, JSON keys and API versions."""
