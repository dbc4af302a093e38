"""The verbs of tare-runtime."""
