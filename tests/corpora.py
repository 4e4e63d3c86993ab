"""Small corpora for tests, made of arrays without any file."""

import hashlib

import numpy as np

from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record

AXES = {1: ("byte",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("t", "z", "y", "x")}


def volume(name, elements, layout="padded", missing=None, modality="scan"):
    """A record of an array."""
    geometry = fitted(Geometry(elements.dtype.str, AXES[elements.ndim], elements.shape, layout), elements, missing)
    return Record(Header(name, name, modality, "npy", geometry), elements, missing)


def text(name, data):
    """A record of text bytes."""
    elements = np.frombuffer(data, np.uint8)
    geometry = Geometry("|u1", ("byte",), elements.shape, "packed")
    return Record(Header(name, name, "text", "text", geometry, {"encoding": "utf-8"}), elements)


def smooth(shape, seed=0, top=900):
    """A smooth int16 volume, 0…top."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    waves = sum(np.sin(2 * np.pi * (f * g + p)) for g in grids for f, p in zip((1, 2), rng.random(2), strict=True))
    scaled = (waves - waves.min()) / (waves.max() - waves.min())
    return np.rint(top * scaled).astype("<i2")


def append(corpus, *records):
    """Commits records; their sources' hashes are those of their names."""
    return list(corpus.append(records, [hashlib.sha256(r.header.record.encode()).hexdigest() for r in records]))
