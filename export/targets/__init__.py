"""The runtimes that files are made for: what they run, and what they want besides."""
