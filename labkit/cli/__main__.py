"""`python -m labkit.cli`, as accelerate starts it."""

import sys

from labkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
