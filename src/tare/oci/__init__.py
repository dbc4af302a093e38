"""The OCI runtime, image and distribution specifications as records. No I/O."""
