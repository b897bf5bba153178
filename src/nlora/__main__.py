"""`python -m nlora` is the command `nlora`."""

from nlora.cli.app import main

if __name__ == "__main__":
    main()
