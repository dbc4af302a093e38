"""What a container's first process does, as small records: each can describe itself and apply itself."""
