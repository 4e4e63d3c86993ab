"""Tell a run something new: a prompt at addresses of its own, or records that were ingested after the run.

A prompt stands after all that is known, or where it is said to. What is told is learned by steps of the loop that
trains, on copies of the weights; the change is kept as a snapshot.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import Shuffled
from aunn_data.spans import Spans
from aunn_model import conditioning
from aunn_model.network import Network
from aunn_model.training import BatchOf, Metrics, Settings, begin, bits_per_byte, steps_within, train
from pipelines import runs
from pipelines.batches import Batches
from pipelines.holes import checks_of, spans_of
from pipelines.snapshots import Opened, Snapshot, knowing
from pipelines.train import deterministic

SAMPLE = 8192  # bytes on which it is measured what is known before and after
AFTER = 1 << 63
KEPT = (
    "steps",
    "batch",
    "optimizer",
    "muon_lr",
    "adam_lr",
    "sgd_lr",
    "schedule",
    "seed",
)  # of the settings, to be read


@dataclass(frozen=True)
class Told:
    """What is told: ``what`` it is for people, its spans, addresses_N (int64) and bytes_N (uint8), and how batches are
    drawn from it."""

    what: str
    spans: Spans
    addresses_N: npt.NDArray[np.int64]
    bytes_N: npt.NDArray[np.uint8]
    batches: Callable[[Settings], BatchOf]


def prompt(what: str, data: bytes, start: int) -> Told:
    """Bytes at addresses from ``start`` on. RequestError if there are none, or they would end beyond 2^63."""
    if not data:
        raise RequestError(what, expected="something to tell", found="nothing", remedy="give a text or a file")
    if start + len(data) > AFTER:
        raise RequestError(
            f"{len(data)} bytes at address {start}", expected="addresses below 2^63", found="more", remedy="begin lower"
        )
    addresses_N, bytes_N = np.arange(start, start + len(data), dtype=np.int64), np.frombuffer(data, np.uint8)

    def batches(settings: Settings) -> BatchOf:
        at, values = torch.from_numpy(addresses_N).to(runs.device()), torch.from_numpy(bytes_N.copy()).to(runs.device())
        if len(at) <= settings.batch:
            return lambda step: (at, values)
        order = Shuffled(len(at), settings.seed)

        def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            ranks_B = torch.from_numpy(order.at(step * settings.batch, settings.batch, settings.batch)).to(at.device)
            return at[ranks_B], values[ranks_B]

        return batch

    return Told(what, np.array([[start, start + len(data)]]), addresses_N, bytes_N, batches)


def records(known: Opened, named: Sequence[str]) -> tuple[Opened, Told]:
    """Records of the corpus' newest version without what is held out of them, missing or a check; and the run that
    knows of them."""
    newest = Corpus.open(known.corpus.name)
    entries = {name: newest.entries.named(name) for name in named}
    holdouts = tuple(
        (h.holdout, h.record, entries[h.record].geometry.format_region(h.region))
        for h in newest.holdouts()
        if h.record in entries
    )
    told = [(entry.header_start, entry.stop) for entry in entries.values()]
    known = knowing(known, newest, newest.entries.fingerprint, holdouts, told)
    within = spans.union(np.array(told))
    without = spans_of(known.checks)

    def batches(settings: Settings) -> Batches:
        return Batches(newest, settings, runs.device(), without, within=within)

    drawn = batches(known.run.settings)
    addresses_N = drawn.sampler.addresses(np.arange(drawn.size))
    return known, Told(", ".join(named), within, addresses_N, drawn.bytes_N.cpu().numpy(), batches)


def tell(
    folder: Path,
    known: Opened,
    told: Told,
    name: str,
    settings: Settings,
    layers: Sequence[str] = (),
    seconds: float | None = None,
    rehearse: float = 0.0,
    on_start: Callable[[int], object] = lambda steps: None,
    on_metrics: Callable[[Metrics], object] = lambda metrics: None,
) -> Snapshot:
    """Takes steps on what is told and keeps the change as a snapshot, which the network of ``known`` has from then on.

    With ``seconds`` the number of steps is planned from a measurement. ``rehearse``: as many addresses that the run was
    trained on go into each batch, as a share of it, so that they are not forgotten. RequestError for layers that there
    are not.
    """
    network, others = known.network, _others(folder, known, settings)
    batches = _rehearsing(told.batches(settings), others(round(rehearse * settings.batch)))
    sampled = others(SAMPLE)
    assert sampled is not None
    sample = sampled(0)
    before, figures = conditioning.weights_of(network), _figures(network, told, sample, "before")
    with deterministic(), _only(network, layers):
        if seconds is not None:
            probe = begin(deepcopy(network), settings)
            settings = replace(settings, steps=steps_within(seconds, probe, settings, batches))
        on_start(settings.steps)
        for metrics in train(begin(network, settings), settings, batches):
            on_metrics(metrics)
    change = conditioning.change_since(network, before)
    conditioning.restore(network, before)
    conditioning.apply(network, change)  # as it is saved: factors leave a little out
    snapshot = Snapshot(
        name,
        told.what,
        tuple((int(start), int(stop)) for start, stop in told.spans),
        known.checkpoint.name,
        known.names,
        known.corpus.version,
        known.corpus.entries.fingerprint,
        tuple(held for held in known.run.holdouts if held not in runs.Run.read(folder).holdouts),
        {"layers": list(layers), "rehearse": rehearse, **{key: getattr(settings, key) for key in KEPT}},
        {**figures, **_figures(network, told, sample, "after"), "norm": conditioning.norm(change)},
    )
    snapshot.write(folder, change)
    return snapshot


@contextmanager
def _only(network: Network, layers: Sequence[str]) -> Iterator[None]:
    there = conditioning.layers_of(network)
    if unknown := [layer for layer in layers if layer not in there]:
        raise RequestError("layers", expected=", ".join(there), found=", ".join(unknown), remedy="choose among these")
    with conditioning.only(network, layers):
        yield


Pairs = tuple[torch.Tensor, torch.Tensor]


def _others(folder: Path, known: Opened, settings: Settings) -> Callable[[int], BatchOf | None]:
    """Batches of a size of what the run was trained on; None of size 0."""
    run = runs.Run.read(folder)
    corpus = run.open_corpus(known.corpus.name)
    without = spans_of(checks_of(corpus, run.holdouts, run.settings.checks, run.settings.seed))

    def batches(size: int) -> Batches | None:
        return Batches(corpus, replace(settings, batch=size), runs.device(), without) if size else None

    return batches


def _rehearsing(batches: BatchOf, others: BatchOf | None) -> BatchOf:
    """Batches with a batch of others behind each."""
    if others is None:
        return batches

    def batch(step: int) -> Pairs:
        (told, values), (known, known_values) = batches(step), others(step)
        return torch.cat([told, known]), torch.cat([values, known_values])

    return batch


def _figures(network: Network, told: Told, others: Pairs, when: str) -> dict[str, float]:
    """Bits per byte of what is told and of others, of each a sample."""
    some = np.random.default_rng(0).permutation(len(told.addresses_N))[:SAMPLE]
    device = others[0].device
    pairs = torch.from_numpy(told.addresses_N[some]).to(device), torch.from_numpy(told.bytes_N[some]).to(device)
    return {
        f"bits_per_byte_{when}": bits_per_byte(network, *pairs),
        f"others_bits_per_byte_{when}": bits_per_byte(network, *others),
    }
