"""Exact duplicates: one payload, a header and a name for each; in a corpus, and on the way into one."""

import gzip
import shutil
from dataclasses import replace

import numpy as np
import pytest

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.geometry import LAYOUTS, Geometry, fitted
from aunn_data.header import NO_SHA256, Header
from aunn_data.rebuild import rebuild
from aunn_data.record import Record
from aunn_data.registry import Holdout
from aunn_data.sampling import trainable
from aunn_data.verify import verify
from pipelines import ingest as flow
from pipelines.export import export
from pipelines.ingest import ingest
from pipelines.options import Options
from pipelines.parallel import Workers

TEXT = b"a text that lies in two places\n" * 40


def record(name, values, layout, missing=None):
    geometry = fitted(Geometry(values.dtype.str, ("y", "x"), values.shape, layout), values, missing)
    return Record(Header(name, name, "scan", "npy", geometry), values, missing)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_record_that_shares_a_payload_has_a_header_of_its_own(tmp_path, layout):
    """Read, verified, trained on once, held out together, looked up, found again from the headers alone."""
    corpus = Corpus.create(tmp_path / "corpus", 30)
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    marks = values % 7 == 0
    [first] = corpus.append([record("first", values, layout, marks)], [NO_SHA256])
    before = spans.size(trainable(corpus))
    twin = replace(record("second", values, layout, marks), missing=None, twin=first)
    second, third = corpus.append([twin, record("third", values[:5], layout)], ["1" * 64, NO_SHA256])
    assert (second.is_shared, third.is_shared) == (True, False)
    assert (corpus.elements(second) == values).all()
    assert (corpus.missing(second) == marks).all()
    assert corpus.header(second).record == "second"
    assert corpus.entries.at(second.payload_start).record == "first"
    assert verify(corpus, deep=True) == []
    more = second.header_bytes + third.header_bytes + third.payload_bytes
    assert spans.size(trainable(corpus)) == before + more
    corpus.add_holdouts([Holdout("h", "second", ((0, 10), (0, 20)))])
    kept = spans.size(trainable(corpus))
    assert before + more - kept == second.geometry.planes * (~marks[:10]).sum()
    rows = [entry.row() for entry in corpus.entries]
    shutil.rmtree(tmp_path / "corpus/registry")
    assert [entry.row() for entry in rebuild(str(tmp_path / "corpus")).corpus.entries] == rows


def test_damage_to_a_shared_payload_is_found(tmp_path):
    """Its owner is named; a twin whose row says another payload is named as well."""
    corpus = Corpus.create(tmp_path / "corpus", 30)
    values = np.arange(400, dtype=np.uint16).reshape(20, 20)
    [first] = corpus.append([record("first", values, "padded")], [NO_SHA256])
    wrong = replace(record("second", values, "padded"), twin=first._replace(sha256="2" * 64))
    corpus.append([wrong], [NO_SHA256])
    assert [(fault.record, "shares" in fault.fault) for fault in verify(corpus)] == [("second", True)]


@pytest.mark.parametrize("workers", [1, 2])
def test_equal_files_are_stored_once_and_both_are_found(tmp_path, monkeypatch, workers):
    """Two copies of a text, of rows, of a file of games and of a volume, in one ingest and in a later one."""
    monkeypatch.setattr(flow, "BATCH_RECORDS", 7)
    home = tmp_path / "home"
    for folder in ("a", "b"):
        (home / folder).mkdir(parents=True)
        (home / folder / "t.txt").write_bytes(TEXT)
        (home / folder / "r.jsonl").write_text("".join(f'{{"text": "{k}", "n": {k % 3}}}\n' for k in range(10)))
        (home / folder / "g.pgn").write_text("".join(f'[Event "{k}"]\n\n1. e4 e5 *\n\n' for k in range(10)))
        np.save(home / folder / "v.npy", np.arange(999).reshape(9, 111))
    corpus = Corpus.create(tmp_path / "corpus", 34)
    report = ingest([home], corpus, workers=Workers(workers))
    assert (report.refused, len(corpus.entries)) == ([], 44)
    assert sorted(e.record for e in corpus.entries if e.is_shared) == sorted(
        ["b/t.txt", "b/v.npy", *(f"b/{name}#{k}" for name in ("g.pgn", "r.jsonl") for k in range(1, 11))]
    )
    (tmp_path / "later.txt").write_bytes(TEXT)
    ingest([tmp_path / "later.txt"], corpus)
    assert corpus.entries.named("later.txt").is_shared
    assert verify(corpus, deep=True) == []
    assert len(ingest([home, tmp_path / "later.txt"], corpus, workers=Workers(workers)).unchanged) == 45
    export(corpus, list(corpus.entries), tmp_path / "out")
    for path in home.rglob("*.*"):
        same = (tmp_path / "out" / path.relative_to(home)).read_bytes()
        assert same == path.read_bytes() or path.suffix == ".pgn"
    assert (tmp_path / "out/later.txt").read_bytes() == TEXT


def test_what_only_looks_equal_is_stored_by_itself(tmp_path):
    """Another layout, another window or other bytes around the same text: no twin."""
    np.save(tmp_path / "a.npy", np.arange(64, dtype=np.int16).reshape(4, 4, 4))
    shutil.copy(tmp_path / "a.npy", tmp_path / "b.npy")
    shutil.copy(tmp_path / "a.npy", tmp_path / "c.npy")
    (tmp_path / "t.txt").write_bytes(TEXT)
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(TEXT))
    corpus = Corpus.create(tmp_path / "corpus", 34)
    ingest([tmp_path / "a.npy"], corpus)
    ingest([tmp_path / "b.npy"], corpus, Options(layout="morton"))
    ingest([tmp_path / "c.npy"], corpus, Options(window=(0.0, 63.0)))
    ingest([tmp_path / "t.txt", tmp_path / "t.txt.gz"], corpus)
    assert not any(entry.is_shared for entry in corpus.entries)


def test_copies_of_which_one_has_a_mask_or_a_fill_value_are_no_twins(tmp_path):
    """What is missing belongs to each: no mask comes over from a copy, no fill value is forgotten."""
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for name in ("a", "b", "c"):
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "a.missing.npy", (values % 2).astype(np.uint8))
    corpus = Corpus.create(tmp_path / "corpus", 34)
    ingest([tmp_path / "a.npy", tmp_path / "b.npy"], corpus)
    ingest([tmp_path / "c.npy"], corpus, Options(fill=7))
    marks = [int(corpus.missing(corpus.entries.named(f"{name}.npy")).sum()) for name in ("a", "b", "c")]
    assert marks == [30, 0, 1]
    assert not any(entry.is_shared for entry in corpus.entries)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_known_file_with_other_options_is_refused_whoever_reads_it(tmp_path, workers):
    """Another fill value, a mask that was not there, another column: committed bytes stay, and the report says why."""
    np.save(tmp_path / "v.npy", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    (tmp_path / "r.jsonl").write_text('{"question": "what", "other": 1}\n{"question": "who", "other": 2}\n')
    paths = [tmp_path / "r.jsonl", tmp_path / "v.npy"]
    corpus = Corpus.create(tmp_path / "corpus", 34)
    ingest(paths, corpus)
    assert len(ingest(paths, corpus, workers=Workers(workers)).unchanged) == 3
    for options in (Options(fill=7, text_column="question"), Options(window=(0, 60), text_column="question")):
        report = ingest(paths, corpus, options, workers=Workers(workers))
        assert (len(report.refused), report.unchanged, report.ingested) == (2, [], [])
    np.save(tmp_path / "v.missing.npy", np.ones((3, 4, 5), np.uint8))
    assert len(ingest([tmp_path / "v.npy"], corpus).refused) == 1
