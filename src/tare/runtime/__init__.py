"""An OCI runtime, usable alone as `tare-runtime`. Knows nothing of images, networks or HTTP."""
