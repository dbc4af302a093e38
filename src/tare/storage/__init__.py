"""Content by digest, snapshots, safe extraction, diff, and the database."""
