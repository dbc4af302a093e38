"""The servers that container logs are shipped to: a sink for each of Docker's drivers. Knows nothing of positions."""
