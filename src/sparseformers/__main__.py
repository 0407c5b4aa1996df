"""``python -m sparseformers``: the command line, also under torchrun."""

import sys

from sparseformers.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
