"""The report: one page that needs nothing else, with everything a person asks of a run."""

import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.training import Settings
from pipelines.cli.model import main
from pipelines.train import train_run
from tests.corpora import append, smooth, text, volume

SETTINGS = Settings(width=16, layers=2, batch=128, steps=40, precision="float32")
VOID = {"meta", "img", "br", "path", "use", "rect", "line", "image"}


class Page(HTMLParser):
    """Tags opened and closed, what they point at, and the words between."""

    def __init__(self, page):
        super().__init__()
        self.open, self.faults, self.links, self.words = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("report")
    corpus = Corpus.create(home / "corpus", 32)
    append(corpus, volume("a<b>.npy", smooth((24, 9, 10))), text("c.txt", b"To be, or not to be\n" * 30))
    slab = Holdout("slab & line", "a<b>.npy", ((12, 14), (0, 9), (0, 10)))
    corpus.add_holdouts([slab, Holdout("slab & line", "c.txt", ((200, 240),))])
    train_run(corpus, home / "run", SETTINGS)
    done = CliRunner().invoke(main, ["report", str(home / "run")])
    assert done.exit_code == 0, done.output
    return home / "run"


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_html_with_names_escaped(page):
    """Every tag is closed by its own; a record's name with a < in it is text."""
    assert page.faults == []
    assert page.open == []
    assert "Holdout “slab & line”" in page.words


def test_the_page_needs_nothing_else(page):
    """What it points at lies in the page itself."""
    assert page.links
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []


@pytest.mark.parametrize(
    "word",
    [
        *("network with fills", "network alone", "spectral", "biharmonic", "harmonic"),
        *("40 of 40, batches of 128", "90%", "Whom the checks made it trust:", "scan", "muon_lr"),
    ],
)
def test_the_page_has_what_a_person_asks(page, word):
    """Figures of us and the fills, steps, calibration, weights, corpus, configuration."""
    assert word in page.words


def test_the_page_has_curves_and_slices(run):
    """Learning, comparison and reliability as SVG, a picture of each record as PNG."""
    source = (run / "report.html").read_text(encoding="utf-8")
    assert source.count("<svg") == 3
    assert len(re.findall(r'src="data:image/png;base64,', source)) == 2


def test_the_same_run_gives_the_same_page(run, tmp_path):
    """No date, no random id: a page can be compared with the one before."""
    done = CliRunner().invoke(main, ["report", str(run), "--out", str(tmp_path / "again.html"), "--quiet"])
    assert done.exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_holdout_that_is_not_there_is_an_error(run):
    """An unknown name is exit 2, with the names that there are."""
    done = CliRunner().invoke(main, ["report", str(run), "--holdout", "blocks"])
    assert done.exit_code == 2
    assert "slab & line" in done.stderr
