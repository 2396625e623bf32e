"""The templates of `new-collector`."""
