"""What a bare library takes to decode a file: the same elements that our readers give, all frames, pages and members.

A picture of indices is none without its palette, an icon is all its sizes: both are asked for.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import math
import mmap
from collections.abc import Callable
from typing import Any

import charset_normalizer
import numpy as np
import zstandard
from PIL import Image

from pipelines.source import Source

SLAB_BYTES = 1 << 26
OPEN = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


def touch(elements: Any) -> None:
    """Every element in memory, a slab at a time; an array that is there already need not be copied."""
    if _in_memory(elements):
        return
    size = math.prod(elements.shape) * elements.dtype.itemsize
    if size <= SLAB_BYTES:
        np.array(elements[...])
        return
    step = max(1, SLAB_BYTES * elements.shape[0] // size)
    for start in range(0, elements.shape[0], step):
        np.array(elements[start : start + step])


def _in_memory(elements: Any) -> bool:
    """Is it an array that maps no file?"""
    if not isinstance(elements, np.ndarray):
        return False
    while isinstance(elements, np.ndarray):
        elements = elements.base
    return not isinstance(getattr(elements, "obj", elements), mmap.mmap)


def _data(source: Source) -> bytes:
    """The bytes of a file, unpacked by the standard library or zstandard."""
    codec = source.codecs[0] if source.codecs else ""
    if codec == "zst":
        return zstandard.ZstdDecompressor().stream_reader(source.path.open("rb"), read_across_frames=True).read()
    with OPEN[codec](source.path) if codec else source.path.open("rb") as file:
        return bytes(file.read())


def _pillow(source: Source) -> None:
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(io.BytesIO(_data(source))) as image:
        if image.format == "ICO":
            for size in image.info["sizes"]:
                image.size = size
                np.array(image)
            return
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            np.array(image)
            if image.mode == "P":
                image.getpalette()


def _tiff(source: Source) -> None:
    import tifffile

    for path in [path for path in source.files if path.suffix.startswith(".tif")] or [source.path]:
        with tifffile.TiffFile(path) as file:
            for page in file.pages:
                page.asarray()


def _dicom(source: Source) -> None:
    import pydicom

    for path in source.files or (source.path,):
        pydicom.dcmread(path).pixel_array  # noqa: B018


def _nibabel(source: Source) -> None:
    import nibabel

    image: Any = nibabel.load(source.path)
    unscaled = getattr(image.dataobj, "get_unscaled", None)
    np.array(unscaled() if unscaled else image.dataobj)


def _mrc(source: Source) -> None:
    import mrcfile

    with mrcfile.open(source.path, permissive=True) as file:
        np.array(file.data)


def _nrrd(source: Source) -> None:
    import nrrd

    nrrd.read(str(source.path))


def _zarr(source: Source) -> None:
    import zarr

    for found in source.path.rglob("*"):
        if found.name == ".zarray" or (
            found.name == "zarr.json" and json.loads(found.read_text())["node_type"] == "array"
        ):
            touch(zarr.open_array(found.parent, mode="r"))


def _hdf5(source: Source) -> None:
    import h5py

    with h5py.File(source.path) as file:
        file.visititems(lambda name, item: touch(item) if isinstance(item, h5py.Dataset) and item.shape else None)


def _idx(source: Source) -> None:
    np.frombuffer(_data(source), np.uint8).copy()


def _text(source: Source) -> None:
    """Decoded without loss, so that of an 8-bit text the encoding must be found out first, as our reader does."""
    data = _data(source)
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        data.decode("utf-16" if marked else "utf-8")
    except UnicodeDecodeError:
        str(charset_normalizer.from_bytes(data).best())


def _parquet(source: Source) -> None:
    import pyarrow.parquet

    pyarrow.parquet.read_table(source.path).to_pylist()


def _warc(source: Source) -> None:
    from warcio.archiveiterator import ArchiveIterator

    with source.path.open("rb") as file:
        for record in ArchiveIterator(file):
            record.content_stream().read()


def _pgn(source: Source) -> None:
    import chess.pgn

    text = io.StringIO(_data(source).decode("utf-8", "replace"))
    while chess.pgn.read_game(text):
        pass


LIBRARIES: dict[str, Callable[[Source], object]] = {
    **dict.fromkeys(("png", "jpeg", "mpo", "gif", "bmp", "ppm", "webp", "ico", "pcx", "heic", "avif"), _pillow),
    **dict.fromkeys(("tiff", "tiff_stack", "tiff_slices", "volpkg", "tifxyz"), _tiff),
    **dict.fromkeys(("nifti1", "nifti2", "analyze", "mgh", "afni", "parrec", "minc", "minc1", "minc2"), _nibabel),
    **dict.fromkeys(("zarr2", "zarr3"), _zarr),
    **dict.fromkeys(("pgn", "pgn-boards"), _pgn),
    "dicom": _dicom,
    "mrc": _mrc,
    "nrrd": _nrrd,
    "hdf5": _hdf5,
    "idx": _idx,
    "npy": lambda source: np.array(np.load(io.BytesIO(_data(source)), allow_pickle=False)),
    "npz": lambda source: [np.array(a) for a in np.load(source.path, allow_pickle=False).values()],
    "text": _text,
    "jsonl": lambda source: [json.loads(line) for line in _data(source).splitlines()],
    "parquet": _parquet,
    "warc": _warc,
}
