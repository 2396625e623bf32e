"""The fixture that the tests of this plug-in share with those of the exporter."""

from servers.certificates import certificates

__all__ = ["certificates"]
