"""Pages whose samples lie in the file as they are, in one piece: what there is to know of them, told without tifffile.

Half of the time that a little file takes would go into tifffile's page, and here nothing is to be decoded.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from pipelines.tiff.ifd import Ifd, Skeleton

# Tags of pages that are compressed, tiled, deep, of a maker's own kind, or have a value that stands for what is absent.
ODD = {255, 322, 324, 347, 512, 513, 530, 32997, 32998, 33628, 33629, 34412, 42113, 50838, 50839}
BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, PLANAR, PREDICTOR = 258, 259, 262, 266, 277, 284, 317
YCBCR = 6
DTYPES = {  # sample format, bits -> numpy's type
    **{(1, 8 * size): f"u{size}" for size in (1, 2, 4, 8)},
    **{(2, 8 * size): f"i{size}" for size in (1, 2, 4, 8)},
    **{(3, 8 * size): f"f{size}" for size in (2, 4, 8)},
}


class Plain(NamedTuple):
    """A page by the names that tifffile's have. ``start`` is where its samples begin in the file."""

    start: int
    shaped: tuple[int, int, int, int, int]
    dtype: np.dtype[Any]
    photometric: int
    extrasamples: tuple[int, ...]
    subfiletype: int
    bitspersample: int
    sampleformat: int = 1  # or signed, or a float: only that of complex numbers is asked for
    compression: int = 1
    predictor: int = 1
    fillorder: int = 1
    is_tiled: bool = False
    nodata: int = 0
    tags: tuple[int, ...] = ()  # none of those that are asked for


def plain_of(skeleton: Skeleton, ifd: Ifd) -> Plain | None:
    """The page of a directory if it is one of these beyond doubt; None if tifffile must be asked, or refuse it."""
    if not ODD.isdisjoint(ifd.by_code):
        return None
    number, numbers = partial(skeleton.number, ifd), partial(skeleton.numbers, ifd)
    samples = number(SAMPLES, 1)
    code = _code(skeleton, ifd, samples)
    if not code:
        return None
    width, length, photometric = number(256, 0), number(257, 0), number(PHOTOMETRIC, 0)
    if min(width, length, samples) < 1 or photometric == YCBCR:
        return None
    dtype = np.dtype((skeleton.order if code[1] > "1" else "|") + code)
    separate = number(PLANAR, 1) == 2
    shaped = (samples, 1, length, width, 1) if separate else (1, 1, length, width, samples)
    rows, size = numbers(278, (length,)), length * width * samples * dtype.itemsize
    strips = shaped[0] * -(-length // rows[0]) if len(rows) == 1 and rows[0] > 0 else 0
    start = _start(numbers(273), numbers(279), strips, size)
    if not 0 < start <= skeleton.size - size:
        return None
    return Plain(start, shaped, dtype, photometric, numbers(338), number(254, 0), 8 * dtype.itemsize)


def _code(skeleton: Skeleton, ifd: Ifd, samples: int) -> str | None:
    """numpy's name of the type of samples that are not compressed and all of one whole width; else None."""
    if any(skeleton.number(ifd, code, 1) != 1 for code in (COMPRESSION, FILL_ORDER, PREDICTOR)):
        return None
    bits, kinds = (set(skeleton.numbers(ifd, code, (1,))[:samples]) for code in (BITS, 339))
    if len(bits) != 1 or len(kinds) != 1 or (bits == {32} and 339 not in ifd.by_code):  # some mean floats then
        return None
    return DTYPES.get((kinds.pop(), bits.pop()))


def _start(offsets: Sequence[int], counts: Sequence[int], strips: int, size: int) -> int:
    """Where so many strips begin that follow one another without a gap and hold so many bytes; 0 if they do not."""
    if not strips == len(offsets) == len(counts) or not strips:
        return 0
    if strips == 1:
        return offsets[0] if counts[0] >= size else 0
    ends = map(sum, zip(offsets, counts, strict=True))
    follow = all(end == after for end, (_, after) in zip(ends, pairwise(offsets), strict=False))
    return offsets[0] if follow and sum(counts) == size else 0
