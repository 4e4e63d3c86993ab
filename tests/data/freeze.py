"""Freezes a tiny corpus of the present format version: ``python -m tests.data.freeze``, once per version, never again.

Writes corpus-v<N>/ and corpus-v<N>.json, what every later release must read in it: rows, elements and marks in
hexadecimal, holdouts.
"""

import json
import sys
from pathlib import Path

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.documents import FORMAT_VERSION
from aunn_data.registry import Holdout
from tests.corpora import append, smooth, text, volume

HERE = Path(__file__).parent


def main() -> int:
    """The exit code."""
    path = HERE / f"corpus-v{FORMAT_VERSION}"
    if path.exists():
        print(f"{path} is there: frozen bytes never change", file=sys.stderr)
        return 1
    corpus = Corpus.create(path, address_bits=20)
    rng, slab = np.random.default_rng(FORMAT_VERSION), ((1, 2), (0, 6), (0, 7))
    scan = smooth((5, 6, 7))
    marked = np.where(gaps := rng.random(scan.shape) < 0.1, np.int16(-(2**15)), scan - 300).astype("<i2")
    append(corpus, volume("scan.npy", scan), text("words.txt", "To be, or not to be: ¿qué?\n".encode() * 20))
    corpus.add_holdouts([Holdout("slab", "scan.npy", slab)])
    append(
        corpus,
        volume("marked.npy", marked, missing=gaps),
        volume("float.npy", rng.standard_normal((3, 4, 5)).astype(">f4"), "morton"),
        volume("zero.npy", np.zeros((4, 16, 32), np.uint8)),
        volume("picture.npy", rng.integers(0, 256, (3, 9, 8), np.uint8), "packed", modality="image"),
    )
    corpus.add_holdouts([Holdout("slab", "marked.npy", slab), Holdout("corner", "float.npy", ((0, 1), (0, 2), (3, 5)))])
    (HERE / f"{path.name}.json").write_text(json.dumps(told(corpus), indent=1, sort_keys=True) + "\n")
    return 0


def told(corpus):
    """What a corpus tells, for JSON."""
    return {
        "version": corpus.version,
        "holdouts": [[h.holdout, h.record, h.region] for h in corpus.holdouts()],
        "records": {
            entry.record: {
                "row": entry.row(),
                "elements_hex": corpus.elements(entry).tobytes().hex(),
                "missing_hex": np.packbits(corpus.missing(entry)).tobytes().hex() if entry.missing_bytes else None,
            }
            for entry in corpus.entries
        },
    }


if __name__ == "__main__":
    sys.exit(main())
