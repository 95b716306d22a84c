"""The command line: parses, calls, prints. No logic lives here, and nothing heavy is imported before a command runs."""

from growkit.cli.main import app, main

__all__ = ["app", "main"]
