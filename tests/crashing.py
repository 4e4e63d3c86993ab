"""A reader for worker processes that dies of one file."""

import os

from pipelines import parallel

_real = parallel._read_small


def read_small(sources, known, left):
    """Reads as ever, but kills its process when it comes to t7.txt."""
    if any(source.path.name == "t7.txt" for source in sources):
        os._exit(1)
    return _real(sources, known, left)
