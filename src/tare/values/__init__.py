"""Pure values shared by all rooms: ids, references, digests, units, ports, mounts. No I/O."""
