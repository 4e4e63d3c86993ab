"""aunn-data sql: the registry's three tables through DuckDB, from the command line and from Python as Arrow."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from click.testing import CliRunner

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.registry import Holdout
from aunn_data.schemas import SCHEMAS
from pipelines.cli.data import main as data
from pipelines.sql import query
from tests.corpora import append, smooth, text, volume

BY_MODALITY = "SELECT modality, count(*), sum(payload_bytes) FROM records GROUP BY 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a corpus of two batches of a text and a scan each, and a holdout."""
    folder = tmp_path_factory.mktemp("sql")
    corpus = Corpus.create(folder / "corpus", 32)
    append(corpus, text("a.txt", b"abc"), volume("a.npy", smooth((3, 4, 5))))
    append(corpus, text("b.txt", b"words"), volume("b.npy", smooth((2, 7, 9))))
    corpus.add_holdouts([Holdout("slab", "a.npy", ((1, 2), (0, 4), (0, 5)))])
    (folder / "secret.txt").write_text("secret")
    (folder / "secret.csv").write_text("a,b\n1,2\n")
    return folder


@pytest.fixture
def corpus(folder, monkeypatch):
    """The corpus, with the folder around it as the working directory."""
    monkeypatch.chdir(folder)
    return Corpus.open(folder / "corpus")


def sql(*args):
    """(exit code, stdout, stderr) of a statement."""
    done = CliRunner().invoke(data, ["sql", *args])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr


def rows(*args):
    code, out, err = sql(*args, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)["rows"]


def test_the_corpus_by_modality(corpus):
    """The statement of the manual counts records and payload bytes of each modality, as a table for people."""
    code, out, err = sql(BY_MODALITY + " ORDER BY 1")
    assert (code, err) == (0, "")
    head, *lines = [line.split() for line in out.splitlines()]
    assert head[0] == "modality"
    assert lines == [["scan", "2", f"{2 * (60 + 126)}"], ["text", "2", "8"]]


def test_json_has_columns_and_rows(corpus):
    """With --json: one document, the columns in order, a row as names and values; sums are plain integers."""
    code, out, _ = sql(BY_MODALITY + " ORDER BY 1", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["columns"] == ["modality", "count_star()", "sum(payload_bytes)"]
    assert found["rows"][1] == {"modality": "text", "count_star()": 2, "sum(payload_bytes)": 8}


def test_every_table_has_the_columns_of_the_format(corpus):
    """records, holdouts and reservations have the columns that the format lists, with what the registry holds."""
    for name in ("records", "holdouts", "reservations"):
        assert query(corpus, f"SELECT * FROM {name}").column_names == SCHEMAS[name].names
    assert rows("SELECT holdout, record, region, starts FROM holdouts") == [
        {"holdout": "slab", "record": "a.npy", "region": "z=1:2,y=0:4,x=0:5", "starts": [1, 0, 0]}
    ]
    [first, second] = rows("SELECT start, stop, created FROM reservations ORDER BY start")
    assert first["stop"] == second["start"]
    assert abs(datetime.fromisoformat(first["created"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_tables_can_be_joined(corpus):
    """Held-out records with their shapes, in one statement over two tables."""
    found = rows("SELECT record, shape FROM records JOIN holdouts USING (record)")
    assert found == [{"record": "a.npy", "shape": [3, 4, 5]}]


def test_from_python_it_is_arrow(corpus):
    """query gives a pyarrow table with DuckDB's types, in the order that was asked for."""
    found = query(corpus, "SELECT record, payload_start FROM records ORDER BY record")
    assert isinstance(found, pa.Table)
    assert found.schema.field("payload_start").type == pa.int64()
    assert found["record"].to_pylist() == ["a.npy", "a.txt", "b.npy", "b.txt"]


def test_an_older_version_has_its_own_records(corpus):
    """--version 1 asks the records of the first batch alone; a version that is not there is exit 2."""
    assert rows("SELECT record FROM records ORDER BY 1", "--version", "1") == [
        {"record": "a.npy"},
        {"record": "a.txt"},
    ]
    assert sql("SELECT 1", "--version", "7")[0] == 2


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("SELECT 'ab'::BLOB", "6162"),
        ("SELECT TIME '12:30:00'", "12:30:00"),
        ("SELECT [1.5::DECIMAL(4, 2), NULL]", [1.5, None]),
        ("SELECT ['nan'::DOUBLE, 'inf']", [None, None]),
        ("SELECT {'a': DATE '2020-02-02'}", {"a": "2020-02-02"}),
        ("SELECT true", True),
        ("SELECT 170141183460469231731687303715884105727::HUGEINT", 2**127 - 1),
        ("SELECT NULL", None),
        ("SELECT '00000000-0000-0000-0000-000000000001'::UUID", "00000000-0000-0000-0000-000000000001"),
        ("SELECT max(shape) FROM records", [5]),
    ],
)
def test_values_of_every_kind_are_json(corpus, statement, value):
    """What DuckDB can answer with has a JSON value and a place in the table."""
    [row] = rows(statement)
    assert list(row.values()) == [value]
    assert sql(statement)[0] == 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELEC modality FROM records", "syntax error"),
        ("SELECT nothing FROM records", "nothing"),
        ("SELECT * FROM elsewhere", "elsewhere"),
        ("SELECT 'a'::INT", "INT32"),
        ("SELECT 1 AS a, 2 AS a", "two columns of one name"),
        ("", "none that gives rows"),
        ("/* nothing */", "none that gives rows"),
        ("SELECT ?", "parameters"),
    ],
)
def test_a_bad_statement_is_exit_2(corpus, statement, said):
    """One line that says what DuckDB has against it and which tables there are; from Python a RequestError."""
    code, out, err = sql(statement)
    assert (code, out) == (2, "")
    assert said in err
    assert "records, holdouts, reservations" in err
    assert len(err.strip().splitlines()) == 1
    with pytest.raises(RequestError):
        query(corpus, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('secret.txt')",
        "SELECT * FROM 'secret.csv'",
        "SELECT * FROM read_parquet('corpus/registry/records/*.parquet')",
        "COPY records TO 'stolen.csv'",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "ATTACH 'stolen.db'",
        "EXPORT DATABASE 'stolen'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true; SELECT * FROM read_text('secret.txt')",
        "DELETE FROM records",
        "INSERT INTO holdouts SELECT * FROM holdouts",
        "SELECT * FROM corpus",
    ],
)
def test_nothing_but_the_tables_can_be_read_or_written(corpus, folder, statement):
    """Files, other databases, extensions and Python's own variables are out of reach; the corpus stays as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, err = sql(statement)
    assert (code, out) == (2, "")
    assert "secret\n" not in err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_no_corpus_is_exit_2(tmp_path):
    """A folder that is no corpus is said to be none."""
    code, _, err = sql("SELECT 1", "--corpus", str(tmp_path))
    assert code == 2
    assert "no corpus there" in err


def test_an_empty_corpus_has_empty_tables(tmp_path):
    """Before the first batch every table has its columns and no row."""
    corpus = Corpus.create(tmp_path / "corpus", 32)
    assert query(corpus, "SELECT count(*) FROM records, holdouts, reservations").to_pylist() == [{"count_star()": 0}]
    assert sql("SELECT * FROM records", "--corpus", corpus.name)[0] == 0
