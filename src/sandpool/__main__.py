"""`python -m sandpool` is the same as `sandpool`."""

from sandpool.cli import main

if __name__ == "__main__":
    main()
