"""The `tare` command. Speaks only the REST API; standard library only."""
