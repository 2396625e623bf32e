"""Who may read the metrics: --web.config.file, with TLS, passwords, headers and a rate limit."""
