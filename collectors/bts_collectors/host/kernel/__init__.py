"""Reading and parsing of /proc, /sys and other kernel interfaces, for all subsystems."""
