"""Keys: names found by SCAN in the background, and the sizes of keys."""
