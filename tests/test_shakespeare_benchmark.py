"""The benchmark of a text: its peers are what they say, its network never trains on the tail, its table prints."""

import itertools
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from aunn_data.sampling import trainable
from aunn_model.training import Settings, bits_per_byte
from benchmarks import by_heart, resuming, shakespeare
from benchmarks import character_models as models
from benchmarks.shakespeare import ingested, learn, main, told

TINY = Settings(width=16, layers=1, batch=64, steps=30, checks=0.0, precision="float32")
SENTENCE = b"To be, or not to be, that is the question. "


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """400 letters at random, of which 340 are trained on."""
    letters = np.random.default_rng(0).choice([*b"abcd"], 400).astype(np.uint8)
    return ingested(tmp_path_factory.mktemp("text"), letters.tobytes())


def everything(text_N):
    return np.ones(len(text_N), np.bool_)


def as_bytes(text):
    return np.frombuffer(text, np.uint8)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_ngram_is_a_distribution(order):
    """What the 256 bytes that might come next are given sums to 1."""
    likely = [
        models.ngram(text_N := as_bytes(SENTENCE + bytes([b])), everything(text_N), order)[-1] for b in range(256)
    ]
    assert sum(likely) == pytest.approx(1)


def test_an_ngram_counts_as_witten_and_bell_do_by_hand():
    """After `aab` a is 2 of 3 letters, of 2 kinds: (2 + 2/256) / 5; told the b before, nothing was seen behind it."""
    text_N = as_bytes(b"aaba")
    one = (2 + 2 / 256) / 5
    assert models.ngram(text_N, everything(text_N), 1)[3] == pytest.approx(one)
    assert models.ngram(text_N, everything(text_N), 2)[3] == pytest.approx(one)


def test_a_bigram_knows_what_alternates():
    """Of `abababab…` a character costs nearly nothing, a unigram 1 bit."""
    text_N = as_bytes(b"ab" * 5000)
    bits = [-np.log2(models.ngram(text_N, everything(text_N), order)[5000:]).mean() for order in (1, 2)]
    assert bits[0] == pytest.approx(1, abs=0.01)
    assert bits[1] < 0.01


def test_an_ngram_that_does_not_count_the_tail_says_the_same_of_it_again():
    """Fixed, a repeated tail costs the same both times; counting, the second time less."""
    text_N = as_bytes(b"some other words " * 20 + 2 * SENTENCE)
    first, half = len(text_N) - 2 * len(SENTENCE), len(SENTENCE)
    fixed = -np.log2(models.ngram(text_N, np.arange(len(text_N)) < first, 3)[first:])
    counting = -np.log2(models.ngram(text_N, everything(text_N), 3)[first:])
    assert fixed[half + 2 :] == pytest.approx(fixed[2:half])
    assert counting[half:].sum() < counting[:half].sum() / 2


@pytest.mark.parametrize("name", models.COMPRESSORS)
def test_what_is_known_costs_a_compressor_less(name):
    """A text behind itself takes far fewer bits than alone."""
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    compress = models.COMPRESSORS[name]
    assert models.compressed(compress, noise) > 8
    assert models.compressed(compress, noise, noise) < 5


def test_no_character_tells_a_transformer_of_one_before_it():
    """Another last character changes the last logits alone."""
    torch.manual_seed(0)
    network = models.Transformer(width=16, layers=1, heads=2).eval()
    one_BT = torch.tensor([[1, 2, 3, 4]])
    other_BT = torch.tensor([[1, 2, 3, 9]])
    with torch.no_grad():
        before, after = network(one_BT), network(other_BT)
    assert torch.allclose(before[0, :3], after[0, :3])
    assert not torch.allclose(before[0, 3], after[0, 3])


def test_a_transformer_learns_and_a_step_on_what_it_predicted_helps(monkeypatch):
    """Of a sentence said again and again it knows nearly all; of another one more when it is told as it goes."""
    monkeypatch.setattr(time, "process_time", itertools.count().__next__)  # a second is a step
    torch.manual_seed(0)
    network = models.Transformer(width=32, layers=1, heads=2)
    known_N = torch.tensor([*SENTENCE * 30], dtype=torch.uint8)
    models.learn(network, known_N, 150)
    with torch.no_grad():
        assert models.told(network, known_N, 600) < 3
        other_N = torch.tensor([*b"Friends, Romans, countrymen, lend me your ears. " * 20], dtype=torch.uint8)
        as_is = models.told(network, other_N, 64)
    assert models.told(network, other_N, 64, 0.1) < as_is


def test_what_is_held_out_is_not_trained_on(text):
    """The last 15 % of the text are no trainable addresses."""
    spans_S = trainable(text.corpus)
    assert (text.learned, text.tail) == (340, 360)
    assert int(spans_S.max()) == text.start + 340


def test_other_letters_in_what_is_held_out_change_no_weight(text, tmp_path):
    """Choosing's part and the tail poisoned: the network is the same to the bit; trained ones poisoned: it is not."""
    poisoned = text.bytes_N.clone()
    poisoned[text.learned :] = ord("z")
    trained = text.bytes_N.clone()
    trained[7] = ord("z")
    weights = []
    for number, bytes_N in enumerate((text.bytes_N, poisoned, trained)):
        (tmp_path / str(number)).mkdir()
        made = ingested(tmp_path / str(number), bytes_N.numpy().tobytes())
        state, _ = learn(made, replace(TINY, order="windows", window=16), 0)
        weights.append(torch.cat([weight.flatten() for weight in state.best.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_telling_what_repeats_is_better_than_asking_as_is(text):
    """A letter that comes again and again is soon known; the network that is copied stays as it was."""
    state, _ = learn(text, TINY, 0)
    addresses_N, _ = text.pairs(text.tail, 400)
    pairs = addresses_N, torch.full_like(addresses_N, ord("z"), dtype=torch.uint8)
    as_is = bits_per_byte(state.best, *pairs)
    assert told(state.best, pairs, 1, "adamw", 0.01, "") < as_is / 2
    assert bits_per_byte(state.best, *pairs) == as_is
    assert all(weight.requires_grad for weight in state.best.parameters())


def test_a_window_is_scored_before_it_is_told(text):
    """One window of all addresses is told too late: the bits are those of asking as is."""
    state, _ = learn(text, TINY, 0)
    pairs = text.pairs(text.tail, 400)
    assert told(state.best, pairs, 40, "sgd", 1.0, "exit") == pytest.approx(bits_per_byte(state.best, *pairs), rel=1e-5)


def test_steps_that_break_the_weights_cost_infinitely_much(text):
    """No rate that diverges is ever chosen."""
    state, _ = learn(text, TINY, 0)
    assert told(state.best, text.pairs(text.tail, 400), 4, "sgd", 1e30, "") == float("inf")


def test_a_table_and_a_document_say_the_same(tmp_path, monkeypatch, capsys):
    """Networks and peers, each a line; --json has the same, and a picture is drawn."""
    monkeypatch.setattr(shakespeare, "TELLINGS", (("sgd", 0.01, "exit"),))
    monkeypatch.setattr(shakespeare, "TRANSFORMERS", ((16, 1),))
    monkeypatch.setattr(shakespeare, "NETWORKS", {"untrained": {}, "small": {"width": 16, "layers": 1, "batch": 64}})
    monkeypatch.setattr(resuming, "best_precision", lambda *_: "float32")
    source = tmp_path / "hamlet.txt"
    source.write_bytes(SENTENCE * 40)
    command = ["--text", str(source), "--seconds", "0.2", "--tail", "40", "--windows", "8"]
    main([*command, "--json", "--picture", str(tmp_path / "bars.png")])
    document = json.loads(capsys.readouterr().out)
    table = shakespeare.table(document)
    names = [row["network"] for row in document["networks"]] + [peer["peer"] for peer in document["peers"]]
    assert names[:3] == ["untrained", "small", "1-gram"]
    assert all(f"| {name} |" in table for name in names)
    assert document["tail"] == 40
    assert document["networks"][1]["told"][0]["window"] == 8
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_by_heart_has_a_line_for_each_network_and_number_of_characters(tmp_path, monkeypatch, capsys):
    """Numbers that the text does not have are left out, all that is learned of it comes last; table and document say
    the same."""
    monkeypatch.setattr(by_heart, "NETWORKS", {name: {"width": 16, "layers": 1, "batch": 64} for name in "ab"})
    monkeypatch.setattr(resuming, "best_precision", lambda *_: "float32")
    source = tmp_path / "hamlet.txt"
    source.write_bytes(SENTENCE * 40)
    words = "--seconds 0.1 --networks a;b --characters 100,800,9999 --json"
    by_heart.main(["--text", str(source), *words.split()])
    found = json.loads(capsys.readouterr().out)
    learned = int(0.85 * 40 * len(SENTENCE))
    assert [(row["characters"], row["network"]) for row in found] == [(n, x) for n in (100, 800, learned) for x in "ab"]
    assert all(row["with_weights"] > row["by_heart"] > 0 for row in found)
    table = by_heart.table([by_heart.Row(**row) for row in found])
    assert table.count("\n") == 1 + len(found)
    assert f"| {found[-1]['by_heart']:.3f} | {found[-1]['with_weights']:.3f} |" in table


def test_a_network_that_learns_the_first_characters_never_sees_the_others(text, tmp_path):
    """With other letters behind the first hundred it gets the same weights; with one of these changed it does not."""
    weights = []
    for number, changed in enumerate((slice(0, 0), slice(100, None), slice(99, 100))):
        bytes_N = text.bytes_N.clone()
        bytes_N[changed] = ord("z")
        (tmp_path / str(number)).mkdir()
        made = replace(ingested(tmp_path / str(number), bytes_N.numpy().tobytes()), learned=100)
        weights.append(learn(made, TINY, 0)[0].best.exit.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_unknown_network_is_a_usage_error(tmp_path, capsys):
    """Exit 2, and its name."""
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--only", "recurrent"])
    assert stopped.value.code == 2
    assert "recurrent" in capsys.readouterr().err
