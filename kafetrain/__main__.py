"""`python -m kafetrain`: the command line."""

from kafetrain.cli import main

if __name__ == "__main__":
    main()
