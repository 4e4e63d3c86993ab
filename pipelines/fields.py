"""How the network reads a corpus' addresses: which bits spell which axis, from the geometries in the registry.

Legend: A = 63 bits of any address, K of the corpus' own; C classes of addresses (one for each different set of axes,
class 0 for lists that have none).
Waves are of two sorts. Oblique ones run in random directions, a Gaussian's draws of some waves over the longest edge:
what they say of a hole is smooth and has no grain along the axes. Waves along an axis are loud if coarse and quiet if
fine, by the same rule of their length for every axis; where records hold frames they are heard beside the oblique ones,
as what frames share is fine. What is quiet at the start is learned last (docs/log.md has the figures).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.geometry import Geometry
from aunn_model.embedding import ADDRESS_BITS, Fields
from pipelines.holes import SPATIAL

Axes = tuple[tuple[int, ...], ...]  # for each axis the address bits of its index, lowest first
Table = npt.NDArray[np.float32]

BIT_GAIN = 0.3  # of a bit that belongs to no axis, beside waves of unit norm together
LIST_NORM = 2.0  # of all features together where there are no axes: lists are learned by heart, not smoothly

SCALE = 1.0  # spread of the oblique waves: how many lie on the longest edge, padded
FRAMES_SHARE = 0.3  # of the energy of all waves, for those along the axes, where a record has frames

SIGN_GAIN = 1.0  # of each sign that says where in a unit an address stands


def fields_of(
    corpus: Corpus,
    octave_decay: float,
    bits: int,
    coded: bool = False,
    unit: int = 1,
    top: int | None = None,
    oblique: int = 0,
) -> Fields:
    """The fields of a corpus whose waves read the lowest ``bits`` bits.

    ``octave_decay`` < 1: gain of a wave over that of twice its length. ``coded``: the bits that number records, and in
    lists every ``unit`` addresses, are told by codes and not by themselves. ``top``: where the addresses end that are
    learned, the corpus' end by default. ``oblique``: how many waves run in random directions; 0: none.
    """
    lists = _Class((), _log2(unit) if coded else None)
    classes, starts, numbers = {lists: 0}, [0], [0]
    for entry in corpus.entries:
        if entry.is_shared:  # its payload has its class already
            continue
        header, payload = _classes(entry, lists, coded)
        for start, kind in ((entry.header_start, header), (entry.payload_start, payload), (entry.payload_stop, lists)):
            number = classes.setdefault(kind, len(classes))
            if number != numbers[-1]:
                starts.append(start)
                numbers.append(number)
    used = max(1, _log2(end_of(corpus) if top is None else top))
    tables = [_beside(kind, oblique, _tables(kind, bits, used, octave_decay)) for kind in classes]
    phase_C, bit_gain_C, wave_gain_C = (torch.from_numpy(np.stack(column)) for column in zip(*tables, strict=True))
    center_A = (torch.arange(ADDRESS_BITS) < used).float()
    coded_CA = torch.stack([(torch.arange(ADDRESS_BITS) >= kind.bits_within).float() for kind in classes])
    quantities_C = torch.tensor([bool(kind.axes) for kind in classes])
    ranges = torch.tensor(starts), torch.tensor(numbers)
    return Fields(*ranges, phase_C, bit_gain_C, wave_gain_C, center_A, coded_CA, quantities_C)


def end_of(corpus: Corpus) -> int:
    """The address after the last of the last record."""
    return corpus.entries[len(corpus.entries) - 1].stop if len(corpus.entries) else 1


class _Class(NamedTuple):
    """Addresses that are read alike: the bits of their axes, how many bits lie below those that codes tell (None if
    there are no codes), and whether an axis is none of space, so that there are frames."""

    axes: Axes
    within: int | None
    frames: bool = False

    @property
    def bits_within(self) -> int:
        """Bits that are told by themselves."""
        return ADDRESS_BITS if self.within is None else self.within


def _classes(entry: Entry, lists: _Class, coded: bool) -> tuple[_Class, _Class]:
    """The classes of a record's header and of its payload."""
    if entry.geometry.layout == "packed" or entry.modality == "text":
        return lists, lists
    within = _log2(entry.stop - entry.header_start) if coded else None
    return _Class((), within), _Class(_axes(entry), within, bool({*entry.axes} - SPATIAL - {"channel"}))


def _log2(count: int) -> int:
    return (count - 1).bit_length()


def _axes(entry: Entry) -> Axes:
    """The address bits of each axis, or none where neighbours along an axis need not be alike (text, boards, lists).

    Channels are no axis but kinds: their bits are told as loudly as those of digit planes and of records. As the
    shortest of waves they would be learned last, and until then red, green and blue be one grey.
    """
    geometry: Geometry = entry.geometry
    if entry.modality == "chess":
        return ()
    named = zip(geometry.axes, geometry.axis_bits, strict=True)
    return tuple(bits for axis, bits in named if bits and axis != "channel")


def _tables(kind: _Class, bits: int, used: int, octave_decay: float) -> tuple[Table, Table, Table]:
    """(K, K) phases, (A,) gains of bits, (K,) gains of waves of one class."""
    phase_KK = np.zeros((bits, bits))
    if not kind.axes and kind.within is not None:
        return _signs(kind.within, bits)
    if not kind.axes:
        for k in range(bits):
            phase_KK[: k + 1, k] = 2.0 ** (np.arange(k + 1) - k - 2)
        of_list_A = np.arange(ADDRESS_BITS) < used
        gain_A = np.where(of_list_A, LIST_NORM / np.sqrt(2 * used), LIST_NORM / np.sqrt(2 * bits)).astype(np.float32)
        return phase_KK.astype(np.float32), gain_A, np.where(of_list_A, gain_A, 0)[:bits]
    bit_gain_A, wave_gain_K = np.full(ADDRESS_BITS, BIT_GAIN), np.zeros(bits)
    bit_gain_A[kind.bits_within :] = 0
    longest = max(len(axis) for axis in kind.axes)
    for axis in kind.axes:
        for i, k in enumerate(axis):
            wave_gain_K[k] = octave_decay ** (longest - 1 - i)
            bit_gain_A[k] = 0
            for j, low in enumerate(axis[: i + 1]):
                phase_KK[low, k] = 2.0 ** (j - i - 2)
        bit_gain_A[axis[0]] = octave_decay**longest  # the shortest wave, of two elements, is the lowest bit itself
    norm = np.sqrt((wave_gain_K**2).sum() + sum(bit_gain_A[axis[0]] ** 2 for axis in kind.axes))
    wave_gain_K /= norm
    for axis in kind.axes:
        bit_gain_A[axis[0]] /= norm
    return phase_KK.astype(np.float32), bit_gain_A.astype(np.float32), wave_gain_K.astype(np.float32)


def _beside(kind: _Class, oblique: int, tables: tuple[Table, Table, Table]) -> tuple[Table, Table, Table]:
    """The tables with ``oblique`` waves after those along the axes; silent ones where there are no axes."""
    phase_KK, bit_gain_A, wave_gain_K = tables
    phase_KO, gain_O = np.zeros((len(phase_KK), oblique)), np.zeros(oblique)
    if oblique and kind.axes:
        share = FRAMES_SHARE if kind.frames else 0.0
        gain_O[:] = np.sqrt((1 - share) / oblique)
        bit_gain_A, wave_gain_K = bit_gain_A.copy(), wave_gain_K * np.sqrt(share)
        bit_gain_A[[axis[0] for axis in kind.axes]] *= np.sqrt(share)
        rng, longest = np.random.default_rng(0), max(len(axis) for axis in kind.axes)
        for axis in kind.axes:
            turns_O = rng.standard_normal(oblique) * SCALE / 2**longest  # from one element to the next
            steps_IO = 2.0 ** np.arange(len(axis))[:, None] * turns_O
            phase_KO[list(axis)] = steps_IO - np.round(steps_IO)  # whole turns are none
    phase_KM, gain_M = np.concatenate([phase_KK, phase_KO], axis=1), np.concatenate([wave_gain_K, gain_O])
    return phase_KM.astype(np.float32), bit_gain_A, gain_M.astype(np.float32)


def _signs(within: int, bits: int) -> tuple[Table, Table, Table]:
    """The tables of a list whose higher bits are told by codes: each lower bit as a sign, and the products of the signs
    up to it, which waves of two elements are. Of a unit of four the four are thus equally far from one another."""
    phase_KK = np.triu(np.full((bits, bits), 0.5))
    gain_A = np.where(np.arange(ADDRESS_BITS) < within, SIGN_GAIN, 0)
    wave_gain_K = np.where(np.arange(bits) > 0, gain_A[:bits], 0)
    return phase_KK.astype(np.float32), gain_A.astype(np.float32), wave_gain_K.astype(np.float32)
