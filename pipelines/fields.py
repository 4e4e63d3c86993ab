"""How the network reads a corpus' addresses: which bits spell which axis, from the geometries in the registry.

Legend: K address bits, C classes of addresses (one for each different set of axes, class 0 for all that has none).
Coarse waves along an axis are loud and fine ones quiet, by the same rule of the wave's length for every axis: nature's
images have such spectra, and what is quiet at the start is learned last (docs/log.md has the figures).
"""

import numpy as np
import numpy.typing as npt
import torch

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.geometry import Geometry
from aunn_model.embedding import Fields

Axes = tuple[tuple[int, ...], ...]  # for each axis the address bits of its index, lowest first

BIT_GAIN = 0.3  # of a bit that belongs to no axis, beside waves of unit norm together
LIST_NORM = 2.0  # of all features together where there are no axes: lists are learned by heart, not smoothly


def fields_of(corpus: Corpus, octave_decay: float, bits: int) -> Fields:
    """The fields of addresses of ``bits`` bits; ``octave_decay`` < 1: gain of a wave over that of twice its length."""
    classes: dict[Axes, int] = {(): 0}
    starts, numbers = [0], [0]
    top = 1
    for entry in corpus.entries:
        if entry.is_shared:  # its payload has its class already
            top = entry.stop
            continue
        number = classes.setdefault(_axes(entry), len(classes))
        for start, value in ((entry.payload_start, number), (entry.payload_stop, 0)):
            if value != numbers[-1]:
                starts.append(start)
                numbers.append(value)
        top = entry.stop
    used = max(1, (top - 1).bit_length())
    tables = [_tables(axes, bits, used, octave_decay) for axes in classes]
    phase_C, bit_gain_C, wave_gain_C = (torch.from_numpy(np.stack(column)) for column in zip(*tables, strict=True))
    center_K = torch.zeros(bits)
    center_K[:used] = 1
    return Fields(torch.tensor(starts), torch.tensor(numbers), phase_C, bit_gain_C, wave_gain_C, center_K)


def _axes(entry: Entry) -> Axes:
    """The address bits of each axis, or none where neighbours along an axis need not be alike (text, boards, lists).

    Channels are no axis but kinds: their bits are told as loudly as those of digit planes and of records. As the
    shortest of waves they would be learned last, and until then red, green and blue be one grey.
    """
    geometry: Geometry = entry.geometry
    if geometry.layout == "packed" or entry.modality in ("text", "chess"):
        return ()
    named = zip(geometry.axes, geometry.axis_bits, strict=True)
    return tuple(bits for axis, bits in named if bits and axis != "channel")


def _tables(
    axes: Axes, bits: int, used: int, octave_decay: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(K, K) phases, (K,) gains of bits, (K,) gains of waves of one class."""
    phase_KK = np.zeros((bits, bits))
    if not axes:
        for k in range(bits):
            phase_KK[: k + 1, k] = 2.0 ** (np.arange(k + 1) - k - 2)
        gain = np.where(np.arange(bits) < used, LIST_NORM / np.sqrt(2 * used), LIST_NORM / np.sqrt(2 * bits))
        return (
            phase_KK.astype(np.float32),
            gain.astype(np.float32),
            np.where(np.arange(bits) < used, gain, 0).astype(np.float32),
        )
    bit_gain_K, wave_gain_K = np.full(bits, BIT_GAIN), np.zeros(bits)
    longest = max(len(axis) for axis in axes)
    for axis in axes:
        for i, k in enumerate(axis):
            wave_gain_K[k] = octave_decay ** (longest - 1 - i)
            bit_gain_K[k] = 0
            for j, low in enumerate(axis[: i + 1]):
                phase_KK[low, k] = 2.0 ** (j - i - 2)
        bit_gain_K[axis[0]] = octave_decay**longest  # the shortest wave, of two elements, is the lowest bit itself
    norm = np.sqrt((wave_gain_K**2).sum() + sum(bit_gain_K[axis[0]] ** 2 for axis in axes))
    wave_gain_K /= norm
    for axis in axes:
        bit_gain_K[axis[0]] /= norm
    return phase_KK.astype(np.float32), bit_gain_K.astype(np.float32), wave_gain_K.astype(np.float32)
