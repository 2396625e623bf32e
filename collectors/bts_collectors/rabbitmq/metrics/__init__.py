"""The metrics by subject, whatever source their values come from."""
