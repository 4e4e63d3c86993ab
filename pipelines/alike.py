"""What records alike say of a hole: the mean of the whole ones that are nearest in what is known of its record.

One digit's lower half is like that of other digits with such an upper half. Of many small records of a kind (digits,
tiles, thumbnails) this knows what no look at the record's own neighbourhood can.

Legend: R whole records, N elements of a record.
"""

from collections.abc import Container

import numpy as np
import numpy.typing as npt

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from pipelines.holes import Mask, whole_like

NEAREST = 16
LEAST = 4 * NEAREST  # whole records without which the nearest are not near
MOST = 1 << 25  # elements of all of them; of more records some are drawn


class Alike:
    """The whole records of each kind, read once; ``lacking``: records that are not whole, and say nothing."""

    def __init__(self, corpus: Corpus, lacking: Container[str], seed: int = 0):
        self.corpus, self.lacking, self.seed = corpus, lacking, seed
        self._known: dict[object, tuple[list[str], npt.NDArray[np.float32]] | None] = {}

    def fill(self, entry: Entry, values: npt.NDArray[np.float64], known: Mask) -> npt.NDArray[np.float64] | None:
        """The values with their unknown elements filled; None if too few records are alike, or nothing is known."""
        kind = (entry.geometry.kind, entry.modality, entry.format)
        if kind not in self._known:
            self._known[kind] = self._read(entry)
        others = self._known[kind]
        if others is None or not known.any():
            return None
        (names, others_RN), known_N = others, known.reshape(-1)
        here_RN = others_RN[:, known_N]
        # |a - b|^2 without |a|^2, which is the same for all
        apart_R = (here_RN**2).sum(axis=1) - 2 * here_RN @ values[known].astype(np.float32)
        apart_R[[name == entry.record for name in names]] = np.inf
        nearest = np.argpartition(apart_R, NEAREST)[:NEAREST]
        out = values.copy()
        out[~known] = others_RN[nearest][:, ~known_N].mean(axis=0)
        return out

    def _read(self, entry: Entry) -> tuple[list[str], npt.NDArray[np.float32]] | None:
        """Names and (R, N) elements of the records alike; None if they are too few, or too large."""
        most = MOST // max(1, entry.geometry.elements)
        if most < LEAST:
            return None
        whole = whole_like(self.corpus, entry, self.lacking)
        if len(whole) > most:
            drawn = np.random.default_rng(self.seed).choice(len(whole), most, replace=False)
            whole = [whole[k] for k in np.sort(drawn)]
        if len(whole) < LEAST:
            return None
        read = (np.asarray(self.corpus.record(other).elements, np.float32).reshape(-1) for other in whole)
        found_RN = np.stack(list(read))
        return ([other.record for other in whole], found_RN) if np.isfinite(found_RN).all() else None
