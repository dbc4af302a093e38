"""Certificates for an engine that listens on TCP: an authority of its own, one for the engine, one for its clients."""
