"""config.yaml becomes typed settings; every error has its file, line and path."""
