"""The connection to the broker and the thread that serves it."""
