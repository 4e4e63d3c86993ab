"""A few bytes that claim to be a huge picture are refused before it is unpacked."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from aunn_data.errors import InputError
from pipelines.compressed import FREE_BYTES
from pipelines.options import Limits


def refuse_bomb(where: str, shape: tuple[int, ...], elements: int, raw: int, compressed: int, limits: Limits) -> None:
    """InputError if ``elements``, or ``raw`` bytes out of ``compressed`` ones, are more than the limits allow."""
    if elements > limits.max_elements or raw > max(FREE_BYTES, compressed * limits.max_ratio):
        raise InputError(
            where,
            expected=f"at most {limits.max_elements} elements and {limits.max_ratio:g} bytes from each compressed one",
            found=f"{' x '.join(map(str, shape))} pixels in {compressed} bytes",
            remedy="leave it out, or give --max-elements or --max-ratio if you trust it",
        )


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Pillow refuses what has more pixels than its own limit; ours hold instead."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
