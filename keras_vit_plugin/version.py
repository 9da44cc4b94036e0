"""The package version: one place, read by pyproject.toml and written into every exported file."""

VERSION = "0.1.0"
