"""One typed function per kernel interface. Only `kernel/libc.py` imports ctypes."""
