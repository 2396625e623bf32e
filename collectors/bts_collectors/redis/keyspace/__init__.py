"""Keys: found in the background, and measured."""
