"""Payloads become metrics by rules of the settings."""
