"""Tell a run something new: a prompt at addresses of its own, or records that were ingested after the run.

A prompt stands after all that is known, or where it is said to. What is told is learned by steps of the loop that
trains, on copies of the weights; the change is kept as a snapshot. Until it ends, a telling is kept in
``RUN/conditions/.NAME-telling/<SHA-256 of all that the change follows from>/{plan.json, checkpoint-<step>/}``.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import Shuffled
from aunn_data.spans import Spans
from aunn_data.store import Folder
from aunn_model import checkpoint, conditioning
from aunn_model.network import Network
from aunn_model.training import BatchOf, Metrics, Settings, State, begin, bits_per_byte, steps_within, train
from pipelines import runs
from pipelines.batches import Batches
from pipelines.holes import checks_of, spans_of
from pipelines.snapshots import CONDITIONS, Opened, Snapshot, knowing
from pipelines.train import deterministic, saving

SAMPLE = 8192  # bytes on which it is measured what is known before and after
AFTER = 1 << 63
PLAN = "plan.json"
# Of the settings, what a reader of change.json wants to know.
KEPT = ("steps", "batch", "optimizer", "muon_lr", "adam_lr", "sgd_lr", "schedule", "seed", "rule")


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
    on_start: Callable[[int, int], object] = lambda steps, resumed_at: None,
    on_metrics: Callable[[Metrics], object] = lambda metrics: None,
) -> Snapshot:
    """Takes steps on what is told and keeps the change as a snapshot, which the network of ``known`` has from then on.

    With ``seconds`` the number of steps is planned from a measurement. ``rehearse``: as many addresses that the run was
    trained on go into each batch, as a share of it, so that they are not forgotten. RequestError for layers that there
    are not.

    A telling that was stopped goes on where it was saved last, and ends with the change that it would have had.
    ``on_start`` gets its number of steps, and how many of them are done.
    """
    network, others = known.network, _others(folder, known, settings)
    batches = _rehearsing(told.batches(settings), others(round(rehearse * settings.batch)))
    sampled = others(SAMPLE)
    assert sampled is not None
    sample = sampled(0)
    before, figures = conditioning.weights_of(network), _figures(network, told, sample, "before")
    with deterministic(), _only(network, layers):
        underway = _underway(folder, name, _identity(known, told, [asdict(settings), list(layers), seconds, rehearse]))
        state, settings = _begun(underway, network, settings, seconds, batches)
        on_start(settings.steps, state.step)
        with saving(state, settings.steps) as save_if_due:
            for metrics in train(state, settings, batches):
                on_metrics(metrics)
                save_if_due(partial(checkpoint.save, underway, state, keep=1))
    change = conditioning.change_since(network, before)
    conditioning.restore(network, before)
    conditioning.apply(network, change)  # as it is saved: factors leave a little out
    snapshot = Snapshot(
        name,
        told.what,
        tuple((int(start), int(stop)) for start, stop in told.spans),
        known.checkpoint.name,
        known.on,
        known.corpus.version,
        known.corpus.entries.fingerprint,
        tuple(held for held in known.run.holdouts if held not in runs.Run.read(folder).holdouts),
        {"layers": list(layers), "rehearse": rehearse, **{key: getattr(settings, key) for key in KEPT}},
        {**figures, **_figures(network, told, sample, "after"), "norm": conditioning.norm(change)},
    ).write(folder, change)
    _forget(underway)
    return snapshot


def _identity(known: Opened, told: Told, how: Sequence[object]) -> str:
    """SHA-256 of all that a change follows from: the weights and how they read addresses, what is told, and how."""
    digest = hashlib.sha256(json.dumps([asdict(known.run), how]).encode())
    for name, value in known.network.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    digest.update(told.addresses_N.tobytes() + told.bytes_N.tobytes())
    return digest.hexdigest()


def _underway(folder: Path, name: str, identity: str) -> Path:
    """The folder of a telling until it ends; those of others of that name, and what is left of any, are removed."""
    underway = folder / CONDITIONS / f".{name}-telling" / identity
    for left in underway.parent.glob("*/"):
        if left != underway or _planned(left) is None:
            _forget(left)
    return underway


def _begun(
    underway: Path, network: Network, settings: Settings, seconds: float | None, batches: BatchOf
) -> tuple[State, Settings]:
    """The state that a telling goes on from, saved or new, and its settings with the steps that are planned for it."""
    if (steps := _planned(underway)) is None:
        steps = settings.steps
        if seconds is not None:
            steps = steps_within(seconds, begin(deepcopy(network), settings), settings, batches)
        Folder(underway).put(PLAN, json.dumps(checkpoint.sealed({"steps": steps})).encode())
    settings = replace(settings, steps=steps)
    state = begin(network, settings)
    for saved in checkpoint.found(underway)[-1:]:
        runs.restore(saved, state)
    return state, settings


def _planned(underway: Path) -> int | None:
    """The number of steps of a telling that has begun; None if there is none."""
    try:
        return int(checkpoint.unsealed((underway / PLAN).read_text())["steps"])
    except (OSError, ValueError, KeyError):
        return None


def _forget(underway: Path) -> None:
    Folder(underway).delete([PLAN])  # first: without it nobody goes on with a half of the rest
    shutil.rmtree(underway, ignore_errors=True)  # what stays the next telling of that name removes
    with suppress(OSError):  # another is under way
        underway.parent.rmdir()


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
