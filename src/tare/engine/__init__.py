"""Docker's verbs in Python, one verb a file. Knows nothing of HTTP, JSON keys or argv."""
