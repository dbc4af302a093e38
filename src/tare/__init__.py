"""Tare: a container engine in plain Python that speaks Docker's Engine API."""

__version__ = "0.1.0"
