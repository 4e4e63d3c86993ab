"""step -> a batch on the training device: which addresses are trained on, and in what order.

========  =============================================================================================================
shuffled  every batch is drawn uniformly; every address once an epoch
windows   a batch is made of contiguous windows of ``window`` addresses; the windows are shuffled
serial    one address after another; with ``streams``, in so many equal parts of the corpus at once
annealed  from shuffled to serial, linearly over the run
========  =============================================================================================================

``repeats`` steps are taken on each batch (minibatch persistency). Of a batch that several devices share each has an
equal part; with as many streams as devices each device reads its own part of the corpus serially.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from aunn_data import orders, spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import Order
from aunn_data.sampling import Mixed, Sampler, trainable
from aunn_data.spans import Spans
from aunn_model.training import Settings

AHEAD = 64  # steps drawn together for a GPU, which is not to wait for their addresses


class Batches:
    """(addresses_B int64, bytes_B uint8) of a step, from all trainable bytes, which lie on the device.

    ``without`` are addresses to leave out beside those held out, ``within`` those to keep to, by default all. ``part``
    = (number, of) is this device's part of every batch. RequestError if there is nothing to train on, or batches cannot
    be shared out.
    """

    def __init__(
        self,
        corpus: Corpus,
        settings: Settings,
        device: torch.device,
        without: Spans = spans.NONE,
        part: tuple[int, int] = (0, 1),
        within: Spans | None = None,
    ):
        self.settings, self.device, self.part = settings, device, part
        self.spans = spans.difference(trainable(corpus), without) if len(without) else trainable(corpus)
        if within is not None:
            self.spans = spans.intersection(self.spans, within)
        if not len(self.spans):
            raise RequestError(
                corpus.name, expected="bytes to train on", found="none", remedy="ingest something that is not held out"
            )
        for name, number in (("streams", settings.streams), ("devices", part[1])):
            if settings.batch % number:
                raise RequestError(
                    "batch",
                    expected=f"a multiple of the {number} {name}",
                    found=str(settings.batch),
                    remedy="change it",
                )
        self.sampler = _sampler(corpus, self.spans, settings)
        self.size = self.sampler.size
        self.bytes_N = torch.from_numpy(corpus.gather(self.sampler.spans)).to(device)
        self._ahead = AHEAD if device.type == "cuda" else 1
        self._thread = ThreadPoolExecutor(1) if self._ahead > 1 else None
        self._drawn: tuple[int, Tensor, Tensor] | None = None
        self._next: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: a pure function of corpus, holdouts, settings and step."""
        block, within = divmod(step // self.settings.repeats, self._ahead)
        if self._drawn is None or self._drawn[0] != block:
            drawn = self._next[1].result() if self._next and self._next[0] == block else self._draw(block)
            ranks_AB = drawn[1].to(self.device, non_blocking=True)
            self._drawn = block, drawn[0].to(self.device, non_blocking=True), self.bytes_N[ranks_AB]
            if self._thread:
                self._next = block + 1, self._thread.submit(self._draw, block + 1)
        return self._drawn[1][within], self._drawn[2][within]

    def _draw(self, block: int) -> tuple[Tensor, Tensor]:
        """(addresses_AB, ranks_AB) of the steps of a block."""
        number, of = self.part
        share = self.settings.batch // of
        mine = slice(number * share, (number + 1) * share)
        steps = range(block * self._ahead, (block + 1) * self._ahead)
        ranks_AB = np.stack([self.sampler.ranks(step, self.settings.batch)[mine] for step in steps])
        addresses_AB = self.sampler.addresses(ranks_AB.reshape(-1)).reshape(ranks_AB.shape)
        drawn = torch.from_numpy(addresses_AB), torch.from_numpy(ranks_AB)
        return (drawn[0].pin_memory(), drawn[1].pin_memory()) if self._thread else drawn


def _sampler(corpus: Corpus, spans_S: Spans, settings: Settings) -> Sampler | Mixed:
    fine_S = _fine(corpus) if settings.fine_share else spans.NONE
    fine_S = spans.intersection(fine_S, spans_S)
    coarse_S = spans.difference(spans_S, fine_S) if len(fine_S) else spans_S
    if not len(fine_S) or not len(coarse_S):
        return Sampler(spans_S, settings.seed, _order(spans.size(spans_S), settings, settings.batch))
    shares = ((coarse_S, 1 - settings.fine_share), (fine_S, settings.fine_share))
    return Mixed(
        [
            (Sampler(part_S, settings.seed + k, _order(spans.size(part_S), settings, share * settings.batch)), share)
            for k, (part_S, share) in enumerate(shares)
        ]
    )


def _order(size: int, settings: Settings, batch: float) -> Order:
    """The order of ``size`` ranks of which a step draws ``batch``."""
    seed = settings.seed
    if settings.order == "windows":
        return orders.windows(size, seed, settings.window)
    serial = orders.Streams(size, settings.streams)
    if settings.order == "serial":
        return serial
    shuffled = orders.Shuffled(size, seed)
    places = int(settings.steps * batch) // settings.repeats
    return orders.Annealed(shuffled, serial, places) if settings.order == "annealed" else shuffled


def _fine(corpus: Corpus) -> Spans:
    """(S, 2) where the digits behind the coarsest lie, of elements of more than one byte."""
    found: list[tuple[int, int]] = []
    for entry in corpus.entries:
        if entry.geometry.planes > 1 and not entry.is_shared:
            found.append((entry.payload_start + entry.geometry.plane_extent, entry.payload_stop))
    return np.array(found, np.int64).reshape(-1, 2)
