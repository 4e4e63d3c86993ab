"""addresses_B -> features_BF: the bits of an absolute address, and the waves that ride on them.

Legend: B batch; A = 63 bits of any address, K of them those of the corpus; M waves; C classes of addresses; F = A + 2M
features. Nothing but the address goes in. Bit k and wave m give

    bit_gain_k * (2 bit_k - center_k),   wave_gain_m * sin(2 pi phase_m),   wave_gain_m * cos(2 pi phase_m)

where phase_m is a sum over the K bits. Of the first K waves it is the coordinate that the bits of m's axis spell up to
m, as a fraction of twice that octave: a wave of period 2^(i+2) elements for the i-th bit of an axis. The others are
oblique: coordinates are sums of bits, so a wave in any direction is one too. center_k is 1, and 0 for the bits that no
address of the corpus has set: these are silent until an address beyond is asked for. Which bits make an axis, and the
gains, differ from one range of addresses to another (volumes of other pitches, text without axes):
``Fields`` says so, a piecewise constant function of the address that follows from how addresses were handed out.

Codes, if there are any: a random half of the bits that number a record have an even or an odd sum, 1 or -1. Neighbours
in number look nearly alike as digits; of P such parities any two records differ in about half. So what is learned of
one is not said of the next, and what is said of a new one (``conditioning``) changes no other.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ADDRESS_BITS = 63  # any address can be asked for


@dataclass(frozen=True)
class Fields:
    """How to read addresses: range r covers addresses from ``starts_R[r]`` to the next start and is of a class.

    starts_R: int64, ascending, the first 0. classes_R: int64 in [0, C). phase_CKM: float32, bits_K @ phase_KM = phases
    in turns. bit_gain_CA, wave_gain_CM: float32. center_A: float32, 1 or 0. coded_CA: float32, 1 for the bits that
    number records, 0 for those within. quantities_C: bool, are the bytes digits of quantities?
    """

    starts_R: Tensor
    classes_R: Tensor
    phase_CKM: Tensor
    bit_gain_CA: Tensor
    wave_gain_CM: Tensor
    center_A: Tensor
    coded_CA: Tensor
    quantities_C: Tensor


class Embedding(nn.Module):
    """The fixed (not learned) features of addresses; ``codes`` is P, the number of parities, drawn by torch's seed."""

    def __init__(self, fields: Fields, codes: int = 0):
        super().__init__()
        self.codes = codes
        self.features = ADDRESS_BITS + 2 * fields.wave_gain_CM.shape[1]
        self.read(fields)
        self.register_buffer("shifts_A", torch.arange(ADDRESS_BITS), persistent=False)
        self.register_buffer("masks_AP", torch.randint(0, 2, (ADDRESS_BITS, codes)).float())
        self.starts_R: Tensor
        self.classes_R: Tensor
        self.phase_CKM: Tensor
        self.bit_gain_CA: Tensor
        self.wave_gain_CM: Tensor
        self.center_A: Tensor
        self.coded_CA: Tensor
        self.quantities_C: Tensor
        self.masks_AP: Tensor
        self.shifts_A: Tensor

    def read(self, fields: Fields) -> None:
        """Reads addresses so from now on; the features of addresses that the fields leave alone stay what they were."""
        device = self.masks_AP.device if "masks_AP" in self._buffers else None
        for name, value in fields.__dict__.items():
            self.register_buffer(name, value.to(device))

    def quantities(self, addresses_B: Tensor) -> Tensor:
        """(B,) bool: are the bytes there digits of quantities?"""
        return self.quantities_C[self._class_of(addresses_B)]

    def parities(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, P) float32 codes, 1 or -1."""
        told_C, of_B = self.told(addresses_B)
        return self.codes_of(told_C)[of_B]

    def told(self, addresses_B: Tensor) -> tuple[Tensor, Tensor]:
        """The different bits, in their places, that codes tell of (B,) addresses, and (B,) which of them is whose."""
        coded_CA = self.coded_CA.long() << self.shifts_A
        told_B = addresses_B & coded_CA.sum(1)[self._class_of(addresses_B)]
        told_C, of_B = torch.unique(told_B, return_inverse=True)
        return told_C, of_B

    def codes_of(self, told_C: Tensor) -> Tensor:
        """(C,) int64 bits that codes tell -> (C, P) float32, 1 or -1."""
        return 1 - 2 * ((told_C[:, None] >> self.shifts_A & 1).float() @ self.masks_AP).remainder_(2)

    def _class_of(self, addresses_B: Tensor) -> Tensor:
        return self.classes_R[torch.searchsorted(self.starts_R, addresses_B, right=True) - 1]

    def forward(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, F) float32."""
        bits_BA = (addresses_B[:, None] >> self.shifts_A & 1).float()
        class_B = self._class_of(addresses_B)
        waves, bits = self.wave_gain_CM.shape[1], ADDRESS_BITS
        out_BF = torch.zeros(len(bits_BA), self.features, device=bits_BA.device)
        torch.mul(bits_BA.mul(2).sub_(self.center_A), self.bit_gain_CA[class_B], out=out_BF[:, :bits])
        for number in torch.unique(class_B).tolist():
            here = (class_B == number).nonzero()[:, 0]
            heard_H = self.wave_gain_CM[number].nonzero()[:, 0]  # the others are 0
            phase_KH, gain_H = self.phase_CKM[number][:, heard_H], self.wave_gain_CM[number, heard_H]
            turns_NH = (bits_BA[here, : len(phase_KH)] @ phase_KH).mul_(2 * math.pi)
            out_BF[here[:, None], bits + heard_H] = turns_NH.sin().mul_(gain_H)
            out_BF[here[:, None], bits + waves + heard_H] = turns_NH.cos().mul_(gain_H)
        return out_BF


class Digits(nn.Module):
    """The binary digits of an address as -1 and 1, lowest first, and nothing else: what the original proposes."""

    def __init__(self, bits: int = ADDRESS_BITS):
        super().__init__()
        self.features = bits
        self.register_buffer("shifts_K", torch.arange(bits), persistent=False)
        self.shifts_K: Tensor

    def quantities(self, addresses_B: Tensor) -> Tensor:
        """(B,) bool, none: digits alone do not know what stands there."""
        return torch.zeros_like(addresses_B, dtype=torch.bool)

    def forward(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, F) float32."""
        return (addresses_B[:, None] >> self.shifts_K & 1).float() * 2 - 1
