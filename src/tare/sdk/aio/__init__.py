"""The asyncio face, written by hand. `plug` is all that knows asyncio; the blocking face is made of the rest."""
