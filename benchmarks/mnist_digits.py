"""Digits of MNIST in a corpus, some of them known and others unseen, and where their labels and pixels stand.

Legend: N digits, K pixels of one, R records, E bytes of a record, B batch.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunn_data.corpus import Corpus
from aunn_model.rules.lesson import generator
from benchmarks.resuming import digest
from pipelines.ingest import ingest

TRAINING, TEST = "train", "t10k"
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
LABEL = b'"label":'
CPU = torch.device("cpu")

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Digits:
    """A corpus of N digits: starts_N (int64) of their headers, where in a record its label stands and its K pixels
    (offsets_K), what stands there (labels_N, pixels_NK, uint8), and which records are known and which are not."""

    corpus: Corpus
    starts: Tensor
    label_offset: int
    offsets: Tensor
    labels: Tensor
    pixels: Tensor
    known: Tensor
    unseen: Tensor

    def labelled(self, records_R: Tensor) -> Pairs:
        """(R,) addresses and bytes of labels."""
        return self.starts[records_R] + self.label_offset, self.labels[records_R]

    def some(self, records_R: Tensor, count: int, *key: object) -> Pairs:
        """(R * count,) addresses and bytes of pixels of each record, as the key has it."""
        which_RC = torch.randint(len(self.offsets), (len(records_R), count), generator=generator(CPU, *key))
        addresses_RC = self.starts[records_R, None] + self.offsets[which_RC]
        return addresses_RC.reshape(-1), self.pixels[records_R[:, None], which_RC].reshape(-1)

    def drawn(self, count: int, *key: object) -> Tensor:
        """(count,) different known records, or all if there are fewer, as the key has it."""
        return self.known[torch.randperm(len(self.known), generator=generator(CPU, *key))[:count]]


def idx(array: Bytes) -> bytes:
    """An array as an idx file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def stored(path: Path) -> bytes:
    """An idx file, gzip or not."""
    return path.read_bytes() if path.exists() else gzip.decompress(_packed(path).read_bytes())


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def elements(path: Path) -> Bytes:
    """The array of an idx file, gzip or not."""
    data = stored(path)
    shape = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def files(source: Path) -> list[Path]:
    """Those that digits are taken from."""
    parts = (TRAINING, TEST) if of_both(source) else (TEST,)
    return [source / f"{part}-{kind}" for part in parts for kind in (IMAGES, LABELS)]


def of_both(source: Path) -> bool:
    """Is there a training file, with its labels?"""
    wanted = [source / f"{TRAINING}-{kind}" for kind in (IMAGES, LABELS)]
    return all(path.exists() or _packed(path).exists() for path in wanted)


def digest_of(source: Path) -> str:
    """What tells the files apart from others."""
    return digest(*map(stored, files(source)))


def about(source: Path) -> str:
    """Where known and unseen digits are taken from."""
    if not of_both(source):
        return f"known and unseen digits are of {TEST}-{IMAGES}: there is no training file"
    images, labels = (len(elements(source / f"{TRAINING}-{kind}")) for kind in (IMAGES, LABELS))
    short = f", {min(images, labels):,} for which there are both, of {images:,} images and {labels:,} labels"
    whole = "" if images == labels else short
    return f"known digits are of {TRAINING}-{IMAGES}{whole}; unseen ones of {TEST}-{IMAGES}"


def digits(source: Path, folder: Path, known: int, unseen: int, seed: int = 0) -> Digits:
    """So many digits of the idx files in ``source``, ingested into a corpus in ``folder``."""
    random, count = np.random.default_rng(seed), known + unseen
    if of_both(source):
        order_N = random.permutation(count)
        parts = [_drawn(source, *part, random) for part in ((TRAINING, known), (TEST, unseen))]
        places_N = np.argsort(order_N)
        images, labels = (np.concatenate(both)[places_N] for both in zip(*parts, strict=True))
    else:
        images, labels = _drawn(source, TEST, count, random)
        order_N = random.permutation(count)
    (folder / f"{TEST}-{IMAGES}").write_bytes(idx(images))
    (folder / f"{TEST}-{LABELS}").write_bytes(idx(labels))
    corpus = Corpus.create(folder / "corpus")
    ingest([folder / f"{TEST}-{IMAGES}"], corpus)
    return _digits(corpus, order_N, known)


def _drawn(source: Path, part: str, count: int, random: np.random.Generator) -> tuple[Bytes, Bytes]:
    """So many images and labels of a part. SystemExit if it has fewer."""
    images, labels = (elements(source / f"{part}-{kind}") for kind in (IMAGES, LABELS))
    there = min(len(images), len(labels))
    if there < count:
        raise SystemExit(f"{there:,} digits of {part}-{IMAGES} are too few for {count:,}")
    chosen = random.permutation(there)[:count]
    return images[chosen], labels[chosen]


def _digits(corpus: Corpus, order_N: npt.NDArray[np.int64], known: int) -> Digits:
    """Records by number, the ``known`` first in an order and the rest; what a record is called does not matter."""
    starts_N = np.asarray(corpus.entries.table["header_start"], np.int64)
    first = corpus.entries[0]
    label = corpus.read(first.header_start, first.payload_start).tobytes().index(LABEL) + len(LABEL)
    offsets_K = np.concatenate([np.arange(*span) for span in first.spans(first.geometry.whole)]) - first.header_start
    bytes_NE = corpus.read(int(starts_N[0]), int(starts_N[-1]) + first.stop - first.header_start)
    at_NK, at_N = (starts_N[:, None] + offsets_K) - starts_N[0], starts_N + label - starts_N[0]
    known_R, unseen_R = np.sort(order_N[:known]), np.sort(order_N[known:])
    tensors = (torch.from_numpy(a) for a in (offsets_K, bytes_NE[at_N], bytes_NE[at_NK], known_R, unseen_R))
    return Digits(corpus, torch.from_numpy(starts_N.copy()), label, *tensors)
