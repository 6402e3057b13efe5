"""`python -m lma` is the command `lma`."""

from lma.cli import main

if __name__ == "__main__":
    main()
