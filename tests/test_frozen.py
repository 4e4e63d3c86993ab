"""A tiny corpus of every format version lies in tests/data and must be read for ever; freeze.py there made them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from aunn_data.corpus import Corpus
from aunn_data.documents import FORMAT_VERSION
from aunn_data.errors import RequestError
from aunn_data.verify import verify
from pipelines.cli.data import main as data
from pipelines.export import export
from tests.corpora import append, text
from tests.data.freeze import told

DATA = Path(__file__).parent / "data"
VERSIONS = sorted(int(path.stem.removeprefix("corpus-v")) for path in DATA.glob("corpus-v*.json"))


@pytest.fixture(params=VERSIONS)
def frozen(request, tmp_path):
    """(a copy of the corpus of a version, what it must tell)."""
    name = f"corpus-v{request.param}"
    shutil.copytree(DATA / name, tmp_path / name)
    return Corpus.open(tmp_path / name), json.loads((DATA / f"{name}.json").read_text())


def test_no_version_is_lacking():
    """Every format version up to the present one is frozen."""
    assert list(range(1, FORMAT_VERSION + 1)) == VERSIONS


def test_all_that_was_in_it_is_read(frozen):
    """Version, rows, every element and mark, holdouts."""
    corpus, expected = frozen
    assert json.loads(json.dumps(told(corpus))) == expected


def test_it_is_clean(frozen):
    """Each hash, each header, and what lies between: verify --deep ends with 0."""
    corpus, _ = frozen
    assert verify(corpus, deep=True) == []
    assert CliRunner().invoke(data, ["verify", "--deep", "--corpus", corpus.name]).exit_code == 0


def test_older_versions_of_it_are_read(frozen):
    """At every older version there are the first of its records, and none at version 0."""
    corpus, expected = frozen
    before = set()
    for version in range(corpus.version + 1):
        there = {entry.record for entry in Corpus.open(corpus.path, version).entries}
        assert before < there or version == 0
        before = there
    assert before == set(expected["records"])


def test_its_files_come_back(frozen, tmp_path):
    """Export writes each record, equal to what went in."""
    corpus, expected = frozen
    done = export(corpus, list(corpus.entries), tmp_path / "out")
    assert done.refused == []
    assert len(done.files) == len(expected["records"])
    for entry, path in done.files:
        elements = bytes.fromhex(expected["records"][entry.record]["elements_hex"])
        assert (path.read_bytes() if entry.modality == "text" else np.load(path).tobytes()) == elements


def test_only_the_newest_format_is_written_to(frozen):
    """An older one refuses a record in one clear line and stays as it was; the newest takes it."""
    corpus, expected = frozen
    if corpus.format_version == FORMAT_VERSION:
        append(corpus, text("new.txt", b"new"))
        assert verify(Corpus.open(corpus.path), deep=True) == []
    else:
        with pytest.raises(RequestError, match=f"version {FORMAT_VERSION} to write to.*kept for reading"):
            append(corpus, text("new.txt", b"new"))
        assert json.loads(json.dumps(told(Corpus.open(corpus.path)))) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_reading_it_writes_nothing(version):
    """The corpus in the tree itself: opened, told, verified, every file is as before and none is new."""
    path = DATA / f"corpus-v{version}"

    def files():
        return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    before, corpus = files(), Corpus.open(path)
    told(corpus)
    verify(corpus, deep=True)
    assert files() == before
