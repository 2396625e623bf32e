"""`python -m bts_exporter`, the same as the command `bts-exporter`."""

from bts_exporter.cli import main

main()
