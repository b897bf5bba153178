"""The command `nlora`, and `python -m nlora`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C is one line, also while the libraries are loaded."""
    try:
        from nlora.cli.app import main as run
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
