"""What is held out of which real data: the cases of `benchmarks.reconstruction`, each by seed the same.

``DATA`` is a folder of real files that are no part of the project: the paths below it stand in the cases. A case is one
array, all of its records stacked, with two masks; how it becomes a corpus follows from them alone. No case reads a file
before it is made.

The brain is AFNI's example series, the one file among ours with frames on one grid that are no near copies: the first
frame was taken before the magnetisation was steady (water bright), the other two after (water dark). Copying the second
frame gives 23.3 dB over the whole first one, the best line through its values 27.5; the frames of the other series
(example4d, pCASL, functional, the EPI phantom) copy at 36 to 60 dB, and FA beside V1 is another quantity, not another
contrast (18.6 dB by the best function of a component).
"""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from aunn_data.corpus import Corpus
from aunn_data.geometry import Region
from aunn_data.registry import Holdout
from pipelines.ingest import ingest

Mask = npt.NDArray[np.bool_]
Elements = npt.NDArray[Any]

ASKED, HIDDEN = "asked", "hidden"  # the names of the holdouts
GAP = -1  # stands for an element that its source lacks

CROP = (slice(0, 64), slice(64, 192), slice(64, 192))
DIGITS, HALVES = 2000, 100
EVERY_LINE = 1000


@dataclass(frozen=True)
class Case:
    """Elements that are asked for, and what may be looked at.

    ``truth`` and both masks have one shape; ``axes`` name it, "item" being the axis along which records are stacked.
    ``asked`` is judged; ``hidden`` is neither judged nor shown. ``files`` writes what is to be ingested into a folder,
    or names it where it lies. ``scattered``: the source itself lacks what is asked for, so the truth lies nowhere in
    the corpus; else it is held out.
    """

    name: str
    truth: Elements
    axes: tuple[str, ...]
    asked: Mask
    hidden: Mask
    files: Callable[[Path], list[Path]]
    scattered: bool = False

    @property
    def known(self) -> Mask:
        """What a method may look at."""
        return ~(self.asked | self.hidden)

    @property
    def given(self) -> npt.NDArray[np.float64]:
        """The values that are known, 0 elsewhere."""
        return np.where(self.known, self.truth, 0).astype(np.float64)

    @property
    def symbols(self) -> bool:
        """Text: a mean of two bytes says nothing."""
        return self.axes == ("byte",)

    def corpus(self, folder: Path) -> Corpus:
        """A corpus in ``folder`` that holds the case's records, with its holdouts."""
        corpus = Corpus.create(folder / "corpus")
        ingest(self.files(folder), corpus)
        if not self.scattered:
            asked, hidden = (self.by_record(corpus, mask) for mask in (self.asked, self.hidden))
            corpus.add_holdouts(
                [
                    Holdout(name, entry.record, region)
                    for name, masks in ((ASKED, asked), (HIDDEN, hidden))
                    for entry, mask in zip(corpus.entries, masks, strict=True)
                    for region in boxes(mask)
                ]
            )
        return corpus

    def by_record(self, corpus: Corpus, array: Elements) -> Elements:
        """An array of the case with the records of its corpus along the first axis: (records, *shape of one)."""
        return array.reshape(len(corpus.entries), *corpus.entries[0].shape)


# ---- masks ----------------------------------------------------------------------------------------------------------


def boxes(mask: Mask) -> Iterator[Region]:
    """Disjoint boxes that make up a mask: runs along the first axis of slices that are alike, and so on within."""
    alike = (mask[1:] == mask[:-1]).reshape(len(mask) - 1, -1).all(axis=1)
    edges = [0, *(np.flatnonzero(~alike) + 1).tolist(), len(mask)]
    for start, stop in pairwise(edges):
        if mask[start].any():
            inner = boxes(mask[start]) if mask.ndim > 1 else [()]
            yield from (((start, stop), *box) for box in inner)


def blocks(shape: tuple[int, ...], size: tuple[int, ...], count: int, seed: int) -> Mask:
    """``count`` blocks at random places that do not overlap."""
    rng, taken = np.random.default_rng(seed), np.zeros(shape, np.bool_)
    while count:
        starts = [int(rng.integers(whole - edge + 1)) for whole, edge in zip(shape, size, strict=True)]
        cut = tuple(slice(low, low + edge) for low, edge in zip(starts, size, strict=True))
        if not taken[cut].any():
            taken[cut] = True
            count -= 1
    return taken


def slices(shape: tuple[int, ...], chosen: slice) -> Mask:
    """Whole slices along the first axis."""
    mask = np.zeros(shape, np.bool_)
    mask[chosen] = True
    return mask


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> Mask:
    """Elements whose middle lies within ``radius`` elements of the centre's."""
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2)


def at_random(shape: tuple[int, ...], share: float, seed: int) -> Mask:
    """Each element by itself with a chance of ``share``."""
    return np.asarray(np.random.default_rng(seed).random(shape) < share)


# ---- cases ----------------------------------------------------------------------------------------------------------


def make(name: str, data: Path, seed: int = 0) -> Case:
    """A case by its name. KeyError if there is none of that name."""
    return CASES[name](name, data, seed)


def _papyrus(mask_of: Callable[[tuple[int, ...], int], Mask], scattered: bool = False) -> Callable[..., Case]:
    def case(name: str, data: Path, seed: int) -> Case:
        whole = np.load(data / "scans/scroll/papyrus_ct_z000-119.npy", mmap_mode="r", allow_pickle=False)
        truth = np.ascontiguousarray(whole[CROP])
        asked = mask_of(truth.shape, seed)
        if scattered:
            return _scattered(name, truth, ("z", "y", "x"), asked)

        def files(folder: Path) -> list[Path]:
            np.save(folder / "papyrus.npy", truth)
            return [folder / "papyrus.npy"]

        return Case(name, truth, ("z", "y", "x"), asked, np.zeros_like(asked), files)

    return case


def _series(
    path: str, mask_of: Callable[[tuple[int, ...], int], Mask], alone: bool = False, beside: tuple[str, ...] = ()
) -> Callable[..., Case]:
    """A series of frames: what is asked for lies in the first; ``alone`` hides the others."""

    def case(name: str, data: Path, seed: int) -> Case:
        truth = np.asarray(nibabel.load(data / path).dataobj.get_unscaled()).T
        asked, hidden = np.zeros((2, *truth.shape), np.bool_)
        asked[0] = mask_of(truth.shape[1:], seed)
        hidden[1:] = alone
        sources = [data / path, *(data / other for other in beside)]
        return Case(name, truth, ("t", "z", "y", "x"), asked, hidden, lambda folder: sources)

    return case


def _kodak(mask_of: Callable[[tuple[int, ...], int], Mask], scattered: bool = False) -> Callable[..., Case]:
    def case(name: str, data: Path, seed: int) -> Case:
        source = data / "images/kodak/kodim23.png"
        with Image.open(source) as image:
            truth = np.ascontiguousarray(np.moveaxis(np.asarray(image), 2, 0))
        asked = np.repeat(mask_of(truth.shape[1:], seed)[None], len(truth), axis=0)
        axes = ("channel", "y", "x")
        if scattered:
            return _scattered(name, truth, axes, asked)
        return Case(name, truth, axes, asked, np.zeros_like(asked), lambda folder: [source])

    return case


def _scattered(name: str, truth: Elements, axes: tuple[str, ...], asked: Mask) -> Case:
    """Elements by themselves, marked as missing in the source: a holdout of each would be a row of a table each."""

    def files(folder: Path) -> list[Path]:
        stored = np.where(asked, np.int16(GAP), truth.astype("<i2"))
        note = {"dtype": "<i2", "shape": truth.shape, "axes": axes, "fill": GAP}
        (folder / f"{name}.raw").write_bytes(stored.tobytes())
        (folder / f"{name}.raw.json").write_text(json.dumps(note))
        return [folder / f"{name}.raw", folder / f"{name}.raw.json"]

    return Case(name, truth, axes, asked, np.zeros_like(asked), files, scattered=True)


def _mnist(name: str, data: Path, seed: int) -> Case:
    """Whole digits, and others without their lower half, as one idx file."""
    packed = gzip.decompress((data / "images/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(packed, np.uint8, offset=16).reshape(-1, 28, 28)
    truth = digits[np.random.default_rng(seed).permutation(len(digits))[: DIGITS + HALVES]]
    asked = np.zeros(truth.shape, np.bool_)
    asked[DIGITS:, 14:] = True

    def files(folder: Path) -> list[Path]:
        path = folder / "digits.idx3"
        path.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", *truth.shape) + truth.tobytes())
        return [path]

    return Case(name, truth, ("item", "y", "x"), asked, np.zeros_like(asked), files)


def _shakespeare(name: str, data: Path, seed: int) -> Case:
    """Every thousandth line, with the byte that ends it; ``seed`` says from where on."""
    source = data / "text/tinyshakespeare_input.txt"
    truth = np.frombuffer(source.read_bytes(), np.uint8)
    line = np.cumsum(truth == ord("\n")) - (truth == ord("\n"))
    first = int(np.random.default_rng(seed).integers(EVERY_LINE))
    asked = line % EVERY_LINE == first
    return Case(name, truth, ("byte",), asked, np.zeros_like(asked), lambda folder: [source])


MRI, BRAIN = "scans/nifti/example4d.nii.gz", "scans/other/example4d+orig.HEAD"
BRIK = ("scans/other/example4d+orig.BRIK.gz",)


def _mri_blocks(shape: tuple[int, ...], seed: int) -> Mask:
    return blocks(shape, (4, 6, 6), 30, seed)


def _fourth(shape: tuple[int, ...], seed: int) -> Mask:
    return slices(shape, slice(2, None, 4))


CASES: dict[str, Callable[[str, Path, int], Case]] = {
    "papyrus-blocks": _papyrus(lambda shape, seed: blocks(shape, (16, 16, 16), 12, seed)),
    "papyrus-slab": _papyrus(lambda shape, seed: slices(shape, slice(28, 36))),
    "papyrus-fourth": _papyrus(_fourth),
    "papyrus-20": _papyrus(lambda shape, seed: at_random(shape, 0.2, seed), scattered=True),
    "mri-blocks-alone": _series(MRI, _mri_blocks, alone=True),
    "mri-slices-alone": _series(MRI, _fourth, alone=True),
    "mri-blocks": _series(MRI, _mri_blocks),
    "mri-slices": _series(MRI, _fourth),
    "brain-slab": _series(BRAIN, lambda shape, seed: slices(shape, slice(11, 15)), beside=BRIK),
    "brain-ball": _series(BRAIN, lambda shape, seed: ball(shape, (16, 22, 16), 5), beside=BRIK),
    "kodak-holes": _kodak(lambda shape, seed: blocks(shape, (32, 32), 19, seed)),
    "kodak-half": _kodak(lambda shape, seed: at_random(shape, 0.5, seed), scattered=True),
    "mnist-lower": _mnist,
    "shakespeare-lines": _shakespeare,
}
