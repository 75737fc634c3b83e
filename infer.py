"""Camouflage photographs: the verb ``infer`` from a clone, ``python infer.py PHOTO_OR_FOLDER ... --out DIR``."""

import sys
from collections.abc import Sequence

from camo.__main__ import main as camo


def main(argv: Sequence[str] | None = None) -> int:
    """Do what ``python -m camo infer`` does, and return its exit status."""
    return camo(["infer", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
