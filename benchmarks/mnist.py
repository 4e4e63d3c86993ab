"""Digits told by their pixels and named by what the network then says at their label's address.

    python -m benchmarks.mnist --data FOLDER [--numbers 100,300,1000,3000,10000] [--unseen 500] [--steps 1200]
                               [--seconds S] [--json] [--picture FILE] [--seed 0] [--work FOLDER]

``FOLDER/images/mnist`` holds MNIST's digits and their labels. Known digits are some of the training file, unseen ones
of the test file; where there is no training file, both are of the test file, of 10,000 digits, and numbers end at 9000.
Of so many as are asked for, unseen ones among the known at random places, ingest makes a corpus: label in the header,
image behind it, one block of addresses a digit, so the label stands at the same offset in each. The network learns
pixels and labels of the known digits. Then it is told the pixels of the unseen, by gradient steps on no weights but
those of the codes, and asked for the byte at their label's address, of all 256.

A record's code times these weights is its *latent*: the rest of the network is a decoder that all records share. What
makes it work (docs/log.md has the figures of each):

- latents begin at nothing, and those of the unseen begin there again: what other records say of them is noise;
- labels teach the decoder and not the latents: a latent that was told its label need not say it by the pixels' part;
- latents go down the plain gradient; Adam's steps, all of one size, make them noise.

``original`` is the same network as it was proposed: digits of the address, no codes, AdamW on all weights, for as much
processor time; it is told with all of its weights. 1-NN and an MLP (784-256-10) see the same digits.

With ``--work`` a killed benchmark goes on: ours, the original and the peers of each number of digits are parts that are
kept, and the weights of the network that learns are saved every 20 seconds; the MLP begins again.

Legend: N digits, K pixels of one, R records, B batch, W width, P parities.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from aunn_model import conditioning
from aunn_model.embedding import Embedding
from aunn_model.network import Network
from aunn_model.training import Settings, State, begin, step
from benchmarks import mnist_digits
from benchmarks.mnist_digits import Digits, digits
from benchmarks.resuming import NOWHERE, Found, Training, Work, add_option, working
from pipelines import runs
from pipelines.train import deterministic

SHARED = ("entry", "trunk", "exit")  # all but the latents
OURS = Settings(
    width=128,
    layers=2,
    optimizer="adamw",
    adam_lr=0.006,
    weight_decay=0.3,  # of the decoder: with few digits it would learn them by heart
    warmup=20,
    ema=0.0,
    batch=2048,
    value_weight=20.0,
)
ORIGINAL = replace(OURS, features="digits", adam_lr=0.003, weight_decay=0.01)
FEWEST_CODES = 4096  # and half as many again as there are records: else latents say much of one another
LATENT_RATE = 3.0  # a latent moves by so many times the gradient of its own record's mean loss
PASSES = 8  # over the pixels, at most: few digits are soon known
REPORT_EVERY, SURE, DRAWN = 250, 0.01, 12
TOGETHER, LABELS_TOGETHER = 256, 256  # records whose pixels are in a batch, and labels


@dataclass(frozen=True)
class Telling:
    """How the unseen are told: ``together`` at once, ``pixels`` of each in each of so many steps."""

    settings: Settings
    layers: tuple[str, ...]
    pixels: int = 64
    together: int = 25


OUR_TELLING = Telling(replace(OURS, optimizer="sgd", steps=40, warmup=0), ("codes",))
ORIGINAL_TELLING = Telling(replace(ORIGINAL, steps=40, warmup=0, adam_lr=0.001), ())
NUMBERS = "100,300,1000,3000"


# ---- learning -------------------------------------------------------------------------------------------------------


def settings_of(base: Settings, made: Digits, work: Work = NOWHERE) -> Settings:
    """With as many codes as the records need, if with any, and the precision that is fastest here."""
    precision = work.precision(base.width, base.batch)
    if base.features == "digits":
        return replace(base, precision=precision)
    codes = max(FEWEST_CODES, 1 << (len(made.starts) * 3 // 2).bit_length())
    return replace(base, precision=precision, codes=codes, sgd_lr=_rate(min(TOGETHER, len(made.known)), codes))


def _rate(together: int, codes: int) -> float:
    """Of plain descent on codes, a batch being of so many records: their latents move by all codes' steps together."""
    return LATENT_RATE * together / codes


def fresh(made: Digits, settings: Settings) -> State:
    """A state at step 0: latents of nothing, which descend plainly, and AdamW on the rest."""
    network = runs.fresh(made.corpus, settings).network
    if network.codes is None:
        return begin(network, settings)
    nn.init.zeros_(network.codes.weight)
    with conditioning.only(network, SHARED):
        shared = begin(network, settings).optimizers
    with conditioning.only(network, ("codes",)):
        latents = begin(network, replace(settings, optimizer="sgd")).optimizers
    return State(network, {**shared, **latents})


def learn(made: Digits, settings: Settings, seconds: float = math.inf, work: Work = NOWHERE) -> tuple[Network, float]:
    """A network that was taught pixels by all its weights and labels by all but the latents, and processor seconds.

    Learning ends with the steps planned, or the seconds.
    """
    state, bits = fresh(made, settings), 0.0
    training = Training(work, state)
    taught_by = () if state.network.codes is None else SHARED
    while not training.over and state.step < settings.steps and training.seconds < seconds:
        key = settings.seed, state.step
        records_R = made.drawn(TOGETHER, "records", *key)
        bits += float(step(state, settings, *made.some(records_R, settings.batch // len(records_R), *key))) / math.log(
            2
        )
        with conditioning.only(state.network, taught_by):
            step(state, settings, *made.labelled(made.drawn(LABELS_TOGETHER, "labels", *key)))
        if state.step % (2 * REPORT_EVERY) == 0:
            right = accuracy(state.network, made, made.known[:1000])
            print(f"step {state.step}: {bits / REPORT_EVERY:.3f} bits a pixel, {right:.1f} % of known", file=sys.stderr)
            bits = 0.0
        training.save()
    return state.network, training.end()


# ---- telling and asking ---------------------------------------------------------------------------------------------


@contextmanager
def told(made: Digits, network: Network, records_R: Tensor, how: Telling) -> Iterator[None]:
    """Within it the network has been told the pixels of records, and nothing else of them."""
    before, settings = conditioning.weights_of(network), how.settings
    if network.codes is not None:
        forget(network, made.starts[records_R])
        settings = replace(settings, sgd_lr=_rate(len(records_R), network.codes.in_features))
    with conditioning.only(network, how.layers):
        state = begin(network, settings)
        while state.step < settings.steps:
            step(state, settings, *made.some(records_R, how.pixels, "told", settings.seed, state.step))
    try:
        yield
    finally:
        conditioning.restore(network, before)


@torch.no_grad()
def forget(network: Network, addresses_R: Tensor) -> None:
    """The least change of the codes' weights after which the records at these addresses have latents of nothing."""
    assert network.codes is not None
    assert isinstance(network.embedding, Embedding)
    codes_RP, weights_WP = network.embedding.parities(addresses_R), network.codes.weight
    latents_RW = codes_RP @ weights_WP.T
    weights_WP.sub_(torch.linalg.solve(codes_RP @ codes_RP.T, latents_RW).T @ codes_RP)


@torch.no_grad()
def said(network: Network, addresses_B: Tensor) -> Tensor:
    """(B, 256) probabilities of bytes."""
    return torch.cat([network(some).softmax(1) for some in addresses_B.split(2048)])


def accuracy(network: Network, made: Digits, records_R: Tensor) -> float:
    """Per cent of labels that are the likeliest of all bytes at their address."""
    addresses_R, labels_R = made.labelled(records_R)
    return _percent(said(network, addresses_R).argmax(1), labels_R)


def classified(made: Digits, network: Network, how: Telling) -> float:
    """Per cent of unseen digits whose label is said once their pixels are told."""
    right = 0.0
    for records_R in made.unseen.split(how.together):
        with told(made, network, records_R, how):
            right += accuracy(network, made, records_R) * len(records_R)
    return right / len(made.unseen)


def _percent(guessed_R: Tensor, labels_R: Tensor) -> float:
    return 100 * float((guessed_R == labels_R).float().mean())


# ---- peers ----------------------------------------------------------------------------------------------------------


def nearest(made: Digits) -> float:
    """Per cent of unseen digits that have the label of the known digit nearest by its pixels."""
    known_RK, unseen_RK = made.pixels[made.known].float(), made.pixels[made.unseen].float()
    nearest_R = made.known[torch.cdist(unseen_RK, known_RK).argmin(1)]
    return _percent(made.labels[nearest_R], made.labels[made.unseen])


def classifier(made: Digits, seconds: float, seed: int) -> float:
    """Per cent of unseen digits that a perceptron of 784-256-10 classifies, trained for as many processor seconds or
    until it is sure of all that it was shown."""
    torch.manual_seed(seed)
    inputs_NK, labels_N = made.pixels.float() / 255, made.labels.long() - ord("0")
    network = nn.Sequential(nn.Linear(len(made.offsets), 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer, began, sure = torch.optim.Adam(network.parameters(), 1e-3), time.process_time(), False
    while not sure and time.process_time() - began < seconds:
        worst = 0.0
        for batch_B in made.known[torch.randperm(len(made.known))].split(128):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(inputs_NK[batch_B]), labels_N[batch_B])
            torch.autograd.backward(loss)
            optimizer.step()
            worst = max(worst, float(loss.detach()))
        sure = worst < SURE
    with torch.no_grad():
        return _percent(network(inputs_NK[made.unseen]).argmax(1), labels_N[made.unseen])


# ---- what is printed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Per cent of unseen digits classified, by ``number`` of known ones, and of ``known`` the labels that the network
    has by heart. Processor seconds of learning, and of telling a thousand digits."""

    number: int
    ours: float
    known: float
    original: float
    original_known: float
    nearest: float
    classifier: float
    seconds: float
    telling_seconds: float


def row(made: Digits, steps: int, seconds: float, seed: int, work: Work = NOWHERE) -> Row:
    """One number of known digits, by all."""

    def ours(work: Work) -> Found:
        network, spent = our_network(made, steps, seconds, seed, work)
        began = time.process_time()
        right = classified(made, network, OUR_TELLING)
        telling = (time.process_time() - began) / len(made.unseen) * 1000
        known = accuracy(network, made, made.known)
        return {"ours": right, "known": known, "seconds": spent, "telling_seconds": telling}

    def original(work: Work) -> Found:
        settings = replace(settings_of(ORIGINAL, made, work), steps=steps_of(made, steps), seed=seed)
        network, _ = learn(made, settings, found["seconds"], work)
        right = classified(made, network, ORIGINAL_TELLING)
        return {"original": right, "original_known": accuracy(network, made, made.known)}

    def peers(work: Work) -> Found:
        return {"nearest": nearest(made), "classifier": classifier(made, found["seconds"], seed)}

    found = work.part("ours", {}, ours)
    key = {"seconds": found["seconds"]}
    return Row(len(made.known), **found, **work.part("original", key, original), **work.part("peers", key, peers))


def our_network(made: Digits, steps: int, seconds: float, seed: int, work: Work) -> tuple[Network, float]:
    """Our network, taught; or, where it is saved already, loaded."""
    settings = replace(settings_of(OURS, made, work), steps=steps_of(made, steps), seed=seed)
    return learn(made, settings, seconds, work)


def steps_of(made: Digits, steps: int) -> int:
    """How many are planned, on pixels and on labels, where so many of each are allowed."""
    return 2 * min(steps, PASSES * len(made.known) * len(made.offsets) // OURS.batch + 1)


def draw(made: Digits, network: Network, path: Path) -> None:
    """Some unseen digits: what was told, what the network then holds, the label it says and how likely it is."""
    records_R = made.unseen[:DRAWN]
    shape = made.corpus.entries[0].shape
    figure = Figure(figsize=(1.2 * len(records_R), 3.2))
    axes = figure.subplots(2, len(records_R))
    with told(made, network, records_R, OUR_TELLING):
        labels_RV = said(network, made.labelled(records_R)[0])
        for column, (record, label_V) in enumerate(zip(records_R.tolist(), labels_RV, strict=True)):
            held_K = said(network, made.starts[record] + made.offsets) @ torch.arange(256.0)
            right = int(label_V.argmax()) == int(made.labels[record])
            title = f"{chr(int(label_V.argmax()))!r} {100 * float(label_V.max()):.0f} %"
            for line, picture_K in enumerate((made.pixels[record], held_K)):
                axes[line, column].imshow(picture_K.reshape(shape).numpy(), cmap="gray", vmin=0, vmax=255)
                axes[line, column].set_axis_off()
            axes[1, column].set_title(title, fontsize=9, color="black" if right else "red")
    figure.suptitle("unseen digits: told (above), held after it (below), and the label that is said", fontsize=10)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def table(rows: list[Row]) -> str:
    """Rows for people."""
    head = "| digits | ours % | known % | original % | known % | 1-NN % | MLP % | seconds | to tell 1,000 |"
    lines = [
        f"| {r.number:,} | {r.ours:.1f} | {r.known:.1f} | {r.original:.1f} | {r.original_known:.1f} | {r.nearest:.1f} "
        f"| {r.classifier:.1f} | {r.seconds:.0f} | {r.telling_seconds:.0f} |"
        for r in rows
    ]
    return "\n".join([head, "|---" * 9 + "|", *lines])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/mnist")
    parser.add_argument("--numbers", help=f"of known digits [{NUMBERS},10000, or 9000 without a training file]")
    parser.add_argument("--unseen", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1200, help="at most, each on pixels and on labels")
    parser.add_argument("--seconds", type=float, default=math.inf, help="processor seconds of learning, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path, help="of some unseen digits, after the last number")
    add_option(parser)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source, rows, key = asked.data / "images/mnist", list[Row](), dict[str, Any]()
    print(mnist_digits.about(source), file=sys.stderr)
    numbers = asked.numbers or f"{NUMBERS},{10000 if mnist_digits.of_both(source) else 9000}"
    given = {name: getattr(asked, name) for name in ("unseen", "steps", "seconds", "seed")}
    settings = [asdict(one) for one in (OURS, ORIGINAL, OUR_TELLING, ORIGINAL_TELLING)]
    given |= {"files": mnist_digits.digest_of(source), "settings": settings}
    with working(asked.work) as work:
        for number in map(int, numbers.split(",")):

            def measured(work: Work, number: int = number) -> Found:
                with tempfile.TemporaryDirectory() as folder, deterministic():
                    made = digits(source, Path(folder), number, asked.unseen, asked.seed)
                    return asdict(row(made, asked.steps, asked.seconds, asked.seed, work))

            key = {"number": number, **given}
            rows.append(Row(**work.part(f"{number} digits", key, measured)))
            print(rows[-1], file=sys.stderr)
        found = [asdict(row) for row in rows]
        work.keep("mnist.json", found)
        if asked.picture:
            with tempfile.TemporaryDirectory() as folder, deterministic():
                made = digits(source, Path(folder), rows[-1].number, asked.unseen, asked.seed)
                inner = work.within(f"{rows[-1].number} digits", key).within("ours", {})
                draw(made, our_network(made, asked.steps, asked.seconds, asked.seed, inner)[0], asked.picture)
    print(json.dumps(found) if asked.json else table(rows))


if __name__ == "__main__":
    main()
