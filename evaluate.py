"""Evaluate masks, fields or a run: `python evaluate.py` is `vesselsdf evaluate`."""

import sys

from vesselsdf.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
