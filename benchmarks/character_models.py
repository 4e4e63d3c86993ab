"""What else predicts characters: n-grams that may go on counting, compressors, and small causal transformers.

Legend: N characters, B batch, T characters of a window, V = 256.
"""

import bz2
import lzma
import time
from collections.abc import Callable
from functools import partial
from math import log

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from torch import Tensor, nn
from torch.nn import functional

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2 -9": partial(bz2.compress, compresslevel=9),
    "xz -9e": partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME),
    "zstd -19": zstandard.ZstdCompressor(level=19).compress,
}
CONTEXT = 128  # characters that a transformer sees
BATCH, RATE, WARMUP = 8, 6e-3, 50

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def ngram(text_N: Bytes, counted_N: Mask, order: int) -> npt.NDArray[np.float64]:
    """(N,) how likely each character was, told the ``order`` - 1 before it, by those before it that are counted.

    Each order is interpolated with the one below it as Witten and Bell (1991) weigh them.
    """
    bytes_N = text_N.astype(np.int64)
    likely_N, context_N = np.full(len(text_N), 1 / 256), np.zeros(len(text_N), np.int64)
    for back in range(order):
        if back:
            context_N[back:] |= bytes_N[:-back] << 8 * (back - 1)
        count_N = _before(context_N << 8 | bytes_N, counted_N)
        total_N = _before(context_N, counted_N)
        kinds_N = _before(context_N, counted_N & (count_N == 0))
        likely_N = np.where(total_N > 0, (count_N + kinds_N * likely_N) / np.maximum(total_N + kinds_N, 1), likely_N)
    return likely_N


def _before(keys_N: npt.NDArray[np.int64], counted_N: Mask) -> npt.NDArray[np.int64]:
    """(N,) how many that are counted, and have the same key, come before each."""
    by_key_N = np.argsort(keys_N, kind="stable")
    sums_N: npt.NDArray[np.int64] = np.cumsum(counted_N[by_key_N]) - counted_N[by_key_N]
    firsts = np.flatnonzero(np.diff(keys_N[by_key_N], prepend=-1))
    out_N = np.empty(len(keys_N), np.int64)
    out_N[by_key_N] = sums_N - np.repeat(sums_N[firsts], np.diff(firsts, append=len(keys_N)))
    return out_N


def compressed(compress: Callable[[bytes], bytes], text: bytes, known: bytes = b"") -> float:
    """Bits per character that a text adds to one that is known, compressed together."""
    added = len(compress(known + text)) - (len(compress(known)) if known else 0)
    return 8 * added / len(text)


class Transformer(nn.Module):
    """(B, T) int64 characters -> (B, T, V) logits of the next; T is at most ``CONTEXT``."""

    def __init__(self, width: int, layers: int, heads: int = 4):
        super().__init__()
        self.characters, self.places = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        for table in (self.characters, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.exit = nn.Linear(width, 256)

    def forward(self, bytes_BT: Tensor) -> Tensor:
        """No character sees a later one."""
        length = bytes_BT.shape[1]
        mask_TT = nn.Transformer.generate_square_subsequent_mask(length)
        first_BTW = self.characters(bytes_BT) + self.places.weight[:length]
        logits_BTV: Tensor = self.exit(self.trunk(first_BTW, mask_TT, is_causal=True))
        return logits_BTV


def learn(network: Transformer, text_N: Tensor, seconds: float, seed: int = 0) -> int:
    """Trains on windows at random for so many processor seconds, the rate falling to 0; returns steps taken."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)
    random, steps, began = np.random.default_rng(seed), 0, time.process_time()
    within_T = torch.arange(CONTEXT + 1)
    while (spent := time.process_time() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((steps + 1) / WARMUP, 1 - spent / seconds)
        starts_B = torch.from_numpy(random.integers(0, len(text_N) - CONTEXT, BATCH))
        windows_BT = text_N[starts_B[:, None] + within_T].long()
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(windows_BT[:, :-1]).flatten(0, 1), windows_BT[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    return steps


def told(network: Transformer, text_N: Tensor, start: int, rate: float = 0.0) -> float:
    """Bits per character of a text from ``start`` on, each told at least half a ``CONTEXT`` before it.

    With a rate the network takes a step of plain descent on each half of a window that it has predicted, and changes.
    """
    optimizer, nats, half = torch.optim.SGD(network.parameters(), rate), 0.0, CONTEXT // 2
    for begin in range(start, len(text_N), half):
        window_T = text_N[max(0, begin - half) : begin + half].long()
        truth_T = window_T[-min(half, len(text_N) - begin) :]
        logits_TV = network(window_T[None, :-1])[0, -len(truth_T) :]
        loss = functional.cross_entropy(logits_TV, truth_T)
        nats += float(loss.detach()) * len(truth_T)
        if rate:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return nats / log(2) / (len(text_N) - start)
