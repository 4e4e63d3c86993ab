"""addresses_B -> features_BF: the bits of an absolute address, and the waves that ride on them.

Legend: B batch; K address bits; C classes of addresses; F = 3K features. Nothing but the address goes in. Bit k gives

    bit_gain_k * (2 bit_k - center_k),   wave_gain_k * sin(2 pi phase_k),   wave_gain_k * cos(2 pi phase_k)

where phase_k is the coordinate that the bits of k's axis spell up to k, as a fraction of twice that octave: a wave of
period 2^(i+2) elements for the i-th bit of an axis. center_k is 1, and 0 for the bits that no address of the corpus
has set: these are silent until an address beyond is asked for. Which bits make an axis, and the gains, differ from one
range of addresses to another (volumes of other pitches, text without axes): ``Fields`` says so, a piecewise constant
function of the address that follows from how addresses were handed out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fields:
    """How to read addresses: range r covers addresses from ``starts_R[r]`` to the next start and is of a class.

    starts_R: int64, ascending, the first 0. classes_R: int64 in [0, C). phase_CKK: float32, bits_K @ phase_KK = phases
    in turns. bit_gain_CK, wave_gain_CK: float32. center_K: float32, 1 or 0.
    """

    starts_R: Tensor
    classes_R: Tensor
    phase_CKK: Tensor
    bit_gain_CK: Tensor
    wave_gain_CK: Tensor
    center_K: Tensor


class Embedding(nn.Module):
    """The fixed (not learned) features of addresses."""

    def __init__(self, fields: Fields):
        super().__init__()
        self.address_bits = fields.bit_gain_CK.shape[1]
        self.features = 3 * self.address_bits
        for name, value in fields.__dict__.items():
            self.register_buffer(name, value)
        self.register_buffer("shifts_K", torch.arange(self.address_bits), persistent=False)
        self.starts_R: Tensor
        self.classes_R: Tensor
        self.phase_CKK: Tensor
        self.bit_gain_CK: Tensor
        self.wave_gain_CK: Tensor
        self.center_K: Tensor
        self.shifts_K: Tensor

    def quantities(self, addresses_B: Tensor) -> Tensor:
        """(B,) bool: are the bytes there digits of quantities? Class 0 is all that has no axes."""
        return self._class_of(addresses_B) > 0

    def _class_of(self, addresses_B: Tensor) -> Tensor:
        return self.classes_R[torch.searchsorted(self.starts_R, addresses_B, right=True) - 1]

    def forward(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, F) float32."""
        bits_BK = (addresses_B[:, None] >> self.shifts_K & 1).float()
        class_B = self._class_of(addresses_B)
        phases_BK = torch.empty_like(bits_BK)
        for number in torch.unique(class_B).tolist():
            here = (class_B == number).nonzero()[:, 0]
            phases_BK[here] = bits_BK[here] @ self.phase_CKK[number]
        turns_BK = phases_BK.mul_(2 * math.pi)
        wave_BK, bit_BK = self.wave_gain_CK[class_B], self.bit_gain_CK[class_B]
        return torch.cat(
            [(2 * bits_BK - self.center_K) * bit_BK, turns_BK.sin() * wave_BK, turns_BK.cos() * wave_BK], dim=1
        )


class Digits(nn.Module):
    """The binary digits of an address as -1 and 1, lowest first, and nothing else: what the original proposes."""

    def __init__(self, bits: int):
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
