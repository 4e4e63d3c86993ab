"""The digits benchmark names unseen drawings by their pixels, and says what it promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import mnist, mnist_digits
from benchmarks.mnist_digits import digits
from benchmarks.resuming import NOWHERE

KNOWN, UNSEEN = 160, 40
CODES, STEPS = 512, 300
TINY = replace(mnist.OURS, width=32, layers=1, codes=CODES, batch=1280, steps=STEPS, precision="float32")
TINY = replace(TINY, sgd_lr=mnist.LATENT_RATE * KNOWN / CODES)
TELLING = replace(
    mnist.OUR_TELLING, pixels=32, settings=replace(mnist.OUR_TELLING.settings, steps=20, precision="float32")
)


def drawn(kind, random):
    """A cross or a ring of 8 x 8, a little moved, of its own brightness."""
    y, x = np.mgrid[:8, :8] - random.integers(3, 5, 2)[:, None, None]
    shape = (x == 0) | (y == 0) if kind else np.maximum(abs(x), abs(y)) == 3
    return (shape * random.integers(150, 256)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Drawings as idx files, in a corpus with 160 known and 40 unseen ones."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, KNOWN + UNSEEN).astype(np.uint8)
    write(source, mnist_digits.TEST, np.stack([drawn(kind, random) for kind in labels]), labels)
    return digits(source, folder, KNOWN, UNSEEN)


def write(source, part, images, labels):
    """A part of MNIST."""
    (source / f"{part}-{mnist_digits.IMAGES}").write_bytes(mnist_digits.idx(images))
    (source / f"{part}-{mnist_digits.LABELS}").write_bytes(mnist_digits.idx(labels))


@pytest.fixture(scope="module")
def learned(made):
    """A network that has learned the known drawings."""
    return mnist.learn(made, TINY)[0]


def test_addresses_are_those_of_the_corpus(made):
    """A label stands at one offset in every header, as text; pixels are the payload; none unseen is known."""
    for entry, label, pixels_K in zip(made.corpus.entries, made.labels, made.pixels, strict=True):
        header = made.corpus.header(entry)
        assert int(label) == ord(str(header.metadata["label"]))
        assert np.array_equal(made.corpus.elements(entry).reshape(-1), pixels_K.numpy())
    assert sorted([*made.known.tolist(), *made.unseen.tolist()]) == list(range(KNOWN + UNSEEN))


def test_pixels_and_label_of_a_record_have_one_code(made, learned):
    """A batch of so many records has so many codes; the network's first activations are those of each address alone."""
    records = made.known[:5]
    addresses = torch.cat([made.labelled(records)[0], made.some(records, 8, 0)[0]])
    different, whose = learned.embedding.told(addresses)
    assert len(different) == 5
    assert torch.equal(whose, torch.cat([torch.arange(5), torch.arange(5).repeat_interleave(8)]))
    alone = torch.cat([learned(address) for address in addresses.split(1)])
    assert torch.allclose(learned(addresses), alone, atol=1e-4)


def test_unseen_drawings_are_named_once_their_pixels_are_told(made, learned):
    """Nine in ten; before they are told, no better than a guess."""
    assert mnist.classified(made, learned, TELLING) >= 90
    mnist.forget(learned, made.starts[made.unseen])
    assert mnist.accuracy(learned, made, made.unseen) <= 75


def test_what_is_told_is_the_pixels_alone(made, learned):
    """With other bytes in place of the unseen labels the network says the same."""
    other = replace(made, labels=torch.full_like(made.labels, ord("x")))
    answers = []
    for one in (made, other):
        with mnist.told(one, learned, one.unseen, TELLING):
            answers.append(mnist.said(learned, one.labelled(one.unseen)[0]))
    assert torch.equal(*answers)


def test_telling_leaves_the_network_as_it_was(made, learned):
    """Each group of digits is told to the weights that were trained."""
    before = {name: weight.clone() for name, weight in learned.named_parameters()}
    with mnist.told(made, learned, made.unseen, TELLING):
        assert not torch.equal(before["codes.weight"], learned.codes.weight)
        assert torch.equal(before["exit.weight"], learned.exit.weight)
    assert all(torch.equal(before[name], weight) for name, weight in learned.named_parameters())


def test_labels_move_no_latents(made):
    """After a step on pixels and one on labels, latents are the same whatever the labels; the decoder is not."""
    other = replace(made, labels=torch.full_like(made.labels, ord("x")))
    first, second = (mnist.learn(one, replace(TINY, steps=2))[0] for one in (made, other))
    assert first.codes.weight.any()
    assert torch.equal(first.codes.weight, second.codes.weight)
    assert not torch.equal(first.exit.weight, second.exit.weight)


def test_peers_and_table(made, tmp_path, monkeypatch):
    """Two very different drawings are no task for peers; the table has a line a number, the picture is drawn."""
    assert mnist.nearest(made) >= 90
    assert mnist.classifier(made, 1.0, 0) >= 90
    for name in ("OURS", "ORIGINAL"):
        monkeypatch.setattr(mnist, name, replace(getattr(mnist, name), width=16, layers=1, batch=256))
    found = mnist.row(made, 3, 1.0, 0)
    mnist.draw(made, mnist.our_network(made, 3, 1.0, 0, NOWHERE)[0], tmp_path / "digits.png")
    assert found.number == KNOWN
    assert mnist.table([found]).count("\n") == 2
    assert (tmp_path / "digits.png").stat().st_size > 0


def test_the_same_seed_learns_the_same(made):
    """Latents, weights and batches follow from the seed."""
    first, second = (mnist.learn(made, replace(TINY, steps=8))[0] for _ in range(2))
    assert torch.equal(first.exit.weight, second.exit.weight)
    assert torch.equal(first.codes.weight, second.codes.weight)


def numbered(start, count):
    """Images of one pixel's worth of their number, and labels that are its last digit."""
    numbers = np.arange(start, start + count)
    return np.repeat(numbers, 4).reshape(-1, 2, 2).astype(np.uint8), (numbers % 10).astype(np.uint8)


def test_with_a_training_file_known_digits_are_its_and_unseen_ones_the_test_files(tmp_path):
    """Each with its own label, at random places among each other; labels without an image are left aside."""
    images, _ = numbered(0, 30)
    write(tmp_path, mnist_digits.TRAINING, images, numbered(0, 60)[1])
    write(tmp_path, mnist_digits.TEST, *numbered(100, 20))
    made = digits(tmp_path, tmp_path, 25, 12)
    known_R, unseen_R = (made.pixels[records][:, 0] for records in (made.known, made.unseen))
    assert (len({*known_R.tolist()}), len({*unseen_R.tolist()})) == (25, 12)
    assert int(known_R.max()) < 30 <= 100 <= int(unseen_R.min())
    assert torch.equal(made.labels, made.pixels[:, 0] % 10 + ord("0"))
    assert 0 < (made.unseen < 25).sum() < 12
    assert "30 for which there are both, of 30 images and 60 labels" in mnist_digits.about(tmp_path)


def test_without_a_training_file_both_are_of_the_test_file(tmp_path):
    """Labels alone are no training file; what is too much is refused."""
    write(tmp_path, mnist_digits.TEST, *numbered(100, 20))
    (tmp_path / f"{mnist_digits.TRAINING}-{mnist_digits.LABELS}").write_bytes(mnist_digits.idx(numbered(0, 60)[1]))
    made = digits(tmp_path, tmp_path, 15, 5)
    assert sorted(made.pixels[:, 0].tolist()) == list(range(100, 120))
    assert "there is no training file" in mnist_digits.about(tmp_path)
    with pytest.raises(SystemExit, match="20 digits of t10k-images-idx3-ubyte are too few for 21"):
        digits(tmp_path, tmp_path, 16, 5)
