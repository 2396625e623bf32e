"""The parts of bts_exporter.testing."""
