"""The client of image registries (OCI distribution): see the room's modules."""
