"""How files of /proc, /sys and the like are read and parsed, for all subsystems."""
