"""The `growkit` program, as a command and as python -m growkit, heard to end by Ctrl-C from its first import on."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from growkit.cli import main as program

        program()
    except KeyboardInterrupt:  # before the command line could say so itself
        sys.stderr.write("growkit: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
