"""Volumes: named directories that outlive containers. Must never know of containers' records."""
