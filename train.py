"""Train the network: `python train.py` is `vesselsdf train`."""

import sys

from vesselsdf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
