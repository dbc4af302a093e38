"""Names to manifests to layers: import, commit, history, tags."""
