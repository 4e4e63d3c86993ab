"""What comes next: bytes after a text, blocks after an image, plies after a game; nothing of the run changes."""

import base64
import io
import json
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import chess.pgn
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_model.continuation import Choice, Drawn, Place, feed_back, open_loop, read_alike
from aunn_model.embedding import Digits
from aunn_model.training import Settings, begin
from pipelines import runs
from pipelines.chess import pgn
from pipelines.cli.data import main as data
from pipelines.cli.model import main as model
from pipelines.continuation import Lengths, asked, feeding, go_on, seen
from pipelines.continued import readable, written
from pipelines.options import Options
from pipelines.source import Source
from tests.commands import run, run_json
from tests.corpora import append, smooth, text, volume

SETTINGS = Settings(width=16, layers=2, batch=64, steps=1, precision="float32")
LAST = (1 << 63) - 1
MOVES = "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 *"
GIVEN = 5  # boards of the game that is in the corpus: the start and four plies


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", 32)
    append(corpus, text("a.txt", b"To be, or not to be\n" * 9), text("b.txt", b"that is the question\n"))
    append(corpus, volume("scan.npy", smooth((5, 6, 7))))
    return corpus


@pytest.fixture
def network(corpus):
    return runs.fresh(corpus, SETTINGS).network


@pytest.fixture
def whole_game(tmp_path):
    path = tmp_path / "game.pgn"
    path.write_text(f'[Event "a"]\n[Result "*"]\n\n{MOVES}\n')
    [record] = pgn.read(Source(path, path.name, Options(chess="boards")))
    return record


class Knows(nn.Module):
    """A network that is sure of one byte at each address of a table, and of 0 elsewhere."""

    def __init__(self, known):
        super().__init__()
        self.embedding, self.known, self.weight = Digits(), known, nn.Parameter(torch.zeros(1))

    def forward(self, addresses_B):
        bytes_B = torch.tensor([self.known.get(address, 0) for address in addresses_B.tolist()])
        return 20.0 * nn.functional.one_hot(bytes_B, 256).float() + self.weight


def places(choice, *starts, count=24):
    return [Place(start + np.arange(count), Drawn(choice, start)) for start in starts]


def bytes_of(found):
    return {number: continued.bytes_N.tolist() for number, continued in found}


# ---- bytes in, bytes out -----------------------------------------------------------------------------------------


def test_an_open_loop_says_of_each_address_what_the_network_says_of_it_alone(network):
    """All at once, in one batch with other places: the same bytes as each address asked by itself."""
    found = bytes_of(open_loop(network, places(Choice(), 500, LAST - 23)))
    for number, start in enumerate((500, LAST - 23)):
        alone = [int(network(torch.tensor([start + k])).argmax()) for k in range(24)]
        assert found[number] == alone


def test_what_is_drawn_follows_from_the_seed_and_the_place(network):
    """The same seed, the same bytes, whatever else is asked in the same batch; another seed or sample, others."""
    warm = Choice(temperature=1.0, seed=7)
    alone = bytes_of(open_loop(network, places(warm, 500)))[0]
    assert bytes_of(open_loop(network, places(warm, 900, 500)))[1] == alone
    assert bytes_of(open_loop(network, places(Choice(temperature=1.0, seed=8), 500)))[0] != alone
    assert bytes_of(open_loop(network, [Place(500 + np.arange(24), Drawn(warm, 500, 1))]))[0] != alone


def test_the_likeliest_of_one_is_the_greedy_byte(network):
    """top_k = 1 is greedy at any temperature; a top_k draws from no more than so many bytes."""
    greedy = bytes_of(open_loop(network, places(Choice(), 500)))
    assert bytes_of(open_loop(network, places(Choice(temperature=2.0, top_k=1), 500))) == greedy
    three = places(Choice(temperature=5.0, top_k=3), 500)
    likely_N3 = network(500 + torch.arange(24)).topk(3).indices
    drawn_N = torch.tensor(bytes_of(open_loop(network, three))[0])
    assert (likely_N3 == drawn_N[:, None]).any(1).all()
    assert (likely_N3[:, 0] != drawn_N).any()


def test_draws_have_the_frequencies_of_the_probabilities():
    """Of 20,000 draws from 1/2, 1/4, 1/4 as many of each as there should be; at half the temperature 2/3, 1/6, 1/6."""
    log_NV = torch.tensor([0.5, 0.25, 0.25]).log().expand(20_000, 3)
    for temperature, expected in ((1.0, [0.5, 0.25, 0.25]), (0.5, [2 / 3, 1 / 6, 1 / 6])):
        shares = torch.bincount(Drawn(Choice(temperature))(log_NV), minlength=3) / 20_000
        assert shares.tolist() == pytest.approx(expected, abs=0.02)


def test_bytes_that_are_fed_back_are_in_the_weights(network):
    """Bytes drawn by a network that knows nothing stand where they were fed back; it said something else before."""
    settings = feeding(SETTINGS, lr=0.3)
    state = begin(network, settings)
    before_N = network(torch.tensor([700])).argmax(1)
    found = bytes_of(feed_back(state, settings, places(Choice(temperature=3.0, seed=2), 700, count=1)))
    assert found[0] != before_N.tolist()
    for _ in range(20):
        again = bytes_of(feed_back(state, settings, [Place(np.array([700]), lambda log_NV: torch.tensor(found[0]))]))
    assert again == found
    assert bytes_of(open_loop(state.best, places(Choice(), 700, count=1))) == found


def test_one_step_with_a_large_rate_writes_a_byte(network):
    """After a single step at a large rate the address says the byte that was fed back."""
    settings = feeding(SETTINGS, lr=3.0)
    state = begin(network, settings)
    for byte in (7, 200, 33):
        list(feed_back(state, settings, [Place(np.array([900]), lambda log_NV, byte=byte: torch.tensor([byte]))]))
        assert bytes_of(open_loop(state.best, places(Choice(), 900, count=1))) == {0: [byte]}


def test_places_fed_back_together_share_the_weights(network):
    """One batch: what is chosen at one place moves what the other says next; a shorter place comes first."""
    settings = feeding(SETTINGS, lr=1.0)

    def fed(*of):
        return bytes_of(feed_back(begin(deepcopy(network), settings), settings, list(of)))

    def insists(log_NV):
        return torch.tensor([65])

    lonely = fed(Place(800 + np.arange(12), Drawn(Choice())))
    both = feed_back(
        begin(network, settings),
        settings,
        [Place(800 + np.arange(12), Drawn(Choice())), Place(5000 + np.arange(6), insists)],
    )
    order = [(number, continued.bytes_N.tolist()) for number, continued in both]
    assert [number for number, _ in order] == [1, 0]
    assert order[1][1][0] == lonely[0][0]
    assert order[1][1] != lonely[0]


def test_an_address_behind_all_others_can_be_read_as_a_record_is(corpus, network):
    """The features of a gap become those of a scan: its axes, its quantities; elsewhere nothing changes."""
    embedding, entry = network.embedding, corpus.entries.named("scan.npy")
    beyond = entry.stop + 4096
    around_B = torch.tensor([0, entry.payload_start, beyond - 1, beyond + 512, LAST])
    before_BF = embedding(around_B)
    read_alike(embedding, beyond, beyond + 512, entry.payload_start)
    assert embedding.quantities(torch.tensor([beyond - 1, beyond, beyond + 511, beyond + 512])).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert (embedding(around_B) == before_BF).all()


# ---- which addresses ---------------------------------------------------------------------------------------------


def test_after_the_corpus_come_the_addresses_behind_its_last_record(corpus):
    """Without a place it goes on behind the last record; after a text, behind its last byte; none was trained on."""
    [end] = asked(corpus, [], [], Lengths(bytes=10))
    last = corpus.entries[len(corpus.entries) - 1]
    assert (end.start, end.stop) == (last.stop, last.stop + 10)
    [after] = asked(corpus, ["b.txt"], [], Lengths(bytes=10))
    assert after.addresses_N[0] == corpus.entries.named("b.txt").payload_stop
    trained_S = np.array([[0, after.start + 5]])
    assert (seen(after, trained_S), seen(end, trained_S)) == (0.5, 0.0)


def test_a_padded_text_goes_on_in_its_own_padding(corpus):
    """Behind its last byte, not behind the power of two that its payload takes."""
    record = text("padded.txt", b"x" * 700)
    geometry = replace(record.header.geometry, layout="padded")
    [entry] = append(corpus, replace(record, header=replace(record.header, geometry=geometry)))
    [place] = asked(corpus, ["padded.txt"], [], Lengths(bytes=10))
    assert place.start == entry.payload_start + 700 < entry.payload_stop


def test_the_last_address_is_asked_and_none_beyond(corpus, network):
    """2^63 - 1 answers; a byte more is refused, and so is a record's block beyond."""
    [place] = asked(corpus, [], [LAST], Lengths(bytes=1))
    [(_, continued)] = go_on(network, corpus, [place], Choice())
    assert len(continued.bytes_N) == 1
    with pytest.raises(RequestError, match=r"below 2\^63"):
        asked(corpus, [], [LAST], Lengths(bytes=2))
    with pytest.raises(RequestError, match=r"below 2\^63"):
        asked(corpus, ["scan.npy"], [], Lengths(blocks=1 << 60))


def test_the_network_that_is_asked_stays_as_it_is(corpus, network):
    """Feeding back and reading blocks alike happen to a copy."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    everything = asked(corpus, ["a.txt", "scan.npy"], [], Lengths(bytes=4))
    list(go_on(network, corpus, everything, Choice(), feeding(SETTINGS, lr=1.0)))
    assert all((value == before[name]).all() for name, value in network.state_dict().items())


def test_what_is_finished_is_there_before_the_rest_is_asked(corpus, network):
    """Ctrl-C at the second place leaves the first one whole; fed back, the shorter place is whole first."""
    two, done = asked(corpus, ["b.txt", "scan.npy"], [], Lengths(bytes=4)), []
    for settings in (None, feeding(SETTINGS)):
        done.clear()
        first, continued = next(go_on(network, corpus, two, Choice(), settings, on_addresses=done.append))
        assert (first, len(continued.bytes_N)) == (two[0], 4)
        assert sum(done) == (4 if settings is None else 8)


def test_what_is_no_text_is_escaped():
    """UTF-8 as it is, line ends and tabs too; bytes and characters that nobody would see as escapes."""
    assert readable("Ä\n\t☃".encode() + b"\xff\0\x1b") == "Ä\n\t☃\\xff\\x00\\x1b"


# ---- images and scans --------------------------------------------------------------------------------------------


def test_after_a_scan_comes_a_block_of_its_geometry(corpus, tmp_path):
    """The bytes of the next block, digit planes and all, become a volume of the same type and shape, without loss."""
    entry, expected = corpus.entries.named("scan.npy"), smooth((5, 6, 7))[::-1]
    geometry, start = entry.geometry, entry.payload_start + 2 * (entry.stop - entry.header_start)
    off = expected.astype(np.int64) - geometry.offset
    high, low = np.divmod(off, geometry.place_values[0])
    at = start + geometry.offsets(geometry.whole)
    known = dict(zip(at.reshape(-1).tolist(), high.reshape(-1).tolist(), strict=True))
    known |= dict(zip((at + geometry.plane_extent).reshape(-1).tolist(), low.reshape(-1).tolist(), strict=True))
    [place] = asked(corpus, ["scan.npy"], [], Lengths(blocks=2))
    [(_, continued)] = go_on(Knows(known), corpus, [place], Choice())
    found = written(corpus, place, continued, tmp_path / "out")
    _, second, picture = found["files"]
    again = np.load(second)
    assert (again.dtype, again.shape) == (expected.dtype, expected.shape)
    assert (again == expected).all()
    with Image.open(picture) as opened:
        assert opened.size[0] > 300


def test_a_guess_past_what_a_type_holds_ends_at_its_largest(corpus, tmp_path):
    """Digits of 255 everywhere are no wrapped negative numbers."""
    scan = np.array([[-32768, 32767]], "<i2")
    append(corpus, volume("wide.npy", scan))
    [place] = asked(corpus, ["wide.npy"], [], Lengths())
    [(_, continued)] = go_on(Knows(dict.fromkeys(place.addresses_N.tolist(), 255)), corpus, [place], Choice())
    assert (np.load(written(corpus, place, continued, tmp_path / "out")["files"][0]) == 32767).all()


# ---- chess -------------------------------------------------------------------------------------------------------


def continued_game(corpus, whole_game, tmp_path, boards, legal=False, plies=None, choice=None):
    """What is said after the first plies of a game by a network that knows these further boards."""
    elements = np.asarray(whole_game.elements)[:GIVEN]
    geometry = replace(whole_game.header.geometry, shape=elements.shape)
    append(corpus, replace(whole_game, header=replace(whole_game.header, geometry=geometry), elements=elements))
    [place] = asked(corpus, ["game.pgn#1"], [], Lengths(plies=plies))
    known = dict(zip(place.addresses_N.tolist(), boards.reshape(-1).tolist(), strict=False))
    [(_, continued)] = go_on(Knows(known), corpus, [place], choice or Choice(), legal=legal)
    return written(corpus, place, continued, tmp_path / "out")


def test_predicted_boards_are_told_as_moves(corpus, whole_game, tmp_path):
    """As many plies as the payload has room for, in standard notation; the PGN has the whole game."""
    boards = np.asarray(whole_game.elements)[GIVEN:]
    found = continued_game(corpus, whole_game, tmp_path, boards)
    assert (found["moves"], found["stops_at_ply"]) == (["Bb5", "a6", "Ba4"], None)
    assert found["text"] == "3. Bb5 a6 4. Ba4"
    game = chess.pgn.read_game(io.StringIO(Path(found["files"][0]).read_text()))
    assert [move.uci() for move in game.mainline_moves()][-3:] == ["f1b5", "a7a6", "b5a4"]
    assert game.headers["Result"] == "*"


def test_the_first_board_that_chess_forbids_ends_the_moves(corpus, whole_game, tmp_path):
    """A piece too many at ply 6: one move is told, then the ply, and how far the board is from a legal one."""
    boards = np.asarray(whole_game.elements)[GIVEN:].copy()
    boards[1, 3, 3] = ord("Q")
    found = continued_game(corpus, whole_game, tmp_path, boards)
    assert (found["moves"], found["stops_at_ply"]) == (["Bb5"], 6)
    assert re.search(
        r"3\. Bb5 \| stops at ply 6: .*\(1 square differs from the nearest legal one, after a6\)", found["text"]
    )
    game = chess.pgn.read_game(io.StringIO(Path(found["files"][0]).read_text()))
    assert game.end().ply() == 5


def test_legal_moves_are_those_whose_boards_are_likeliest(corpus, whole_game, tmp_path):
    """The same forbidden board, and empty ones behind it: the nearest legal move is played, and legal ones after it."""
    boards = np.asarray(whole_game.elements)[GIVEN:].copy()
    boards[1, 3, 3] = ord("Q")
    found = continued_game(corpus, whole_game, tmp_path, boards[:2], legal=True)
    assert found["moves"][:2] == ["Bb5", "a6"]
    assert (len(found["moves"]), found["stops_at_ply"]) == (3, None)


def test_a_game_that_is_over_has_no_further_moves(corpus, tmp_path):
    """After mate chess stops at once, legal or not."""
    path = tmp_path / "mate.pgn"
    path.write_text('[Event "a"]\n[Result "0-1"]\n\n1. f3 e5 2. g4 Qh4# 0-1\n')
    [record] = pgn.read(Source(path, path.name, Options(chess="boards")))
    append(corpus, record)
    [place] = asked(corpus, ["mate.pgn#1"], [], Lengths())
    for legal in (False, True):
        [(_, continued)] = go_on(Knows({}), corpus, [place], Choice(), legal=legal)
        found = written(corpus, place, continued, tmp_path / "out")
        assert found["moves"] == []
    assert len(continued.bytes_N) == 0


def test_a_game_without_room_is_refused(corpus, whole_game, tmp_path):
    """A payload has room up to the next power of two, and the error says how much."""
    boards = np.asarray(whole_game.elements)[GIVEN:]
    with pytest.raises(RequestError, match="room for 4 plies after the last of 5; found room for 3"):
        continued_game(corpus, whole_game, tmp_path, boards, plies=4)


# ---- as a user types it ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The sample collection and a run of a few steps."""
    folder = tmp_path_factory.mktemp("continue")
    (folder / "run.toml").write_text("width = 16\ncodes = 16\n")
    assert run(data, "sample", folder / "things")[0] == 0
    assert run(data, "ingest", folder / "things", "--corpus", folder / "corpus", "--quiet")[0] == 0
    options = "--out", folder / "run", "--config", folder / "run.toml", "--steps", 3, "--quiet"
    assert run(model, "train", "--corpus", folder / "corpus", *options)[0] == 0
    return folder


def test_text_is_printed_and_nothing_written(trained, monkeypatch, tmp_path):
    """Without a place: what comes after the corpus, on stdout alone; the folder for files is not even made."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(model, "continue", trained / "run", "--bytes", 40)
    assert (code, err) == (0, "")
    assert out.strip()
    assert list(tmp_path.iterdir()) == []


def test_several_places_and_kinds_in_one_command(trained, tmp_path):
    """A text, a picture, a game and an address together: each in its own format, all keys in one JSON document."""
    places = "--after", "text/sonnets.txt", "--after", "images/mosaic.png", "--after", "chess/games.pgn#1", "--at", LAST
    found = run_json(model, "continue", trained / "run", *places, "--bytes", 1, "--plies", 2, "--out", tmp_path / "out")
    assert (found["run"], found["mode"]) == (str(trained / "run"), "open loop")
    assert json.loads((tmp_path / "out" / "continuations.json").read_text(encoding="utf-8")) == found
    sonnets, mosaic, game, last = found["continuations"]
    assert [sonnets["after"], mosaic["after"], game["after"], last["at"]] == [*places[1:6:2], LAST]
    assert sonnets["seen"] == 1  # the next text's header
    assert len(base64.b64decode(last["bytes"])) == 1
    assert all(one["stop"] > one["start"] and 0 <= one["entropy_bits_per_byte"] <= 8 for one in found["continuations"])
    image, picture = mosaic["files"]
    with Image.open(image) as opened, Image.open(trained / "things/images/mosaic.png") as given:
        opened.load()
        assert (opened.size, opened.mode) == (given.size, given.mode)
    with Image.open(picture) as opened:
        assert opened.size[0] > 300
    assert game["stops_at_ply"] == 81
    assert game["moves"] == []


def test_feeding_back_prints_the_same_twice(trained):
    """With a seed, drawn and fed back in one batch: two samples that differ, and the same two the next time."""
    options = "--feed-back", "--temperature", 1, "--top-k", 40, "--samples", 2, "--bytes", 12, "--lr", 0.5
    first = run_json(model, "continue", trained / "run", *options)
    assert first["mode"] == "feed back"
    assert run_json(model, "continue", trained / "run", *options) == first
    a, b = first["continuations"]
    assert (a["sample"], b["sample"]) == (0, 1)
    assert a["bytes"] != b["bytes"]


def test_what_was_trained_on_is_called_memory(trained):
    """A note on stderr, none with --quiet."""
    _, _, err = run(model, "continue", trained / "run", "--after", "text/sonnets.txt", "--bytes", 5)
    assert re.search(r"note: .*trained on all of it, memory, not continuation", err)
    assert run(model, "continue", trained / "run", "--after", "text/sonnets.txt", "--quiet")[2] == ""


def test_what_makes_no_sense_is_a_clear_error(trained):
    """Addresses beyond, unknown records, samples of the same bytes, legal moves of a text: exit 2 and why."""
    for options, said in (
        (["--at", LAST, "--bytes", 2], "below 2^63"),
        (["--after", "sonnets.txt"], "text/sonnets.txt"),
        (["--samples", 2], "--temperature"),
        (["--legal", "--after", "text/sonnets.txt"], "--legal needs a game"),
    ):
        code, _, err = run(model, "continue", trained / "run", *options)
        assert code == 2
        assert said in err
    code, out, _ = run(model, "continue", trained / "run", "--at", 1 << 63, "--json")
    assert "error" in json.loads(out)
