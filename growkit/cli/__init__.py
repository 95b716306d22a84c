"""The command line: parses, calls, prints. No logic lives here, and nothing heavy is imported before a command runs."""

# in the order that help lists their commands
from growkit.cli import growth, merging, checks, data, training, chain, panel, skills, speaking, report, forecast, push  # isort: skip
from growkit.cli.app import app, main

__all__ = [
    "app",
    "chain",
    "checks",
    "data",
    "forecast",
    "growth",
    "main",
    "merging",
    "panel",
    "push",
    "report",
    "skills",
    "speaking",
    "training",
]
