"""`python -m filter` and the `consentry` command."""

from .cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
