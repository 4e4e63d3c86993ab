"""JSON Lines: one row a record, every line back as it was."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunn_data import header as headers
from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines import formats
from pipelines.options import Limits, Options
from pipelines.records import each
from pipelines.source import Source
from pipelines.text import jsonl, plain
from tests.format_contract import Example, FormatContract, records_of, source_of

ROWS = (
    b'{"id": 1, "text": "one \\u00fc \\ud83d\\ude42\\n"}\n'
    b'{"text":"zwei \xc3\xbc","meta":{"b":1.50,"a":[null,true]}}\r\n\n'
    b'{"id": NaN, "text": "\\/ slashes \\/", "text2": "\\ud800"}\n'
    b'{"id": 12345678901234567890123, "text": ""}'
)


def lines(name, data, records, module=jsonl, **options):
    return Example(name, module, lambda path: path.write_bytes(data), records, checked=False, **options)


EXAMPLES = [
    lines("rows.jsonl", ROWS, 4),
    lines("mark.ndjson", b"\xef\xbb\xbf\n" + ROWS.replace(b"\n", b"\r\n"), 4),
    lines("long.json", b'{"text": "%s"}\n{"text": "b"}\n' % (b"x" * 5000), 2),
    Example("text/cc_en_head-0091.jsonl", jsonl, records=10, checked=False),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestJsonl(FormatContract):
    """The contract over rows of all kinds."""


def rows_of(tmp_path, data, name="a.jsonl", **options):
    """(payload, metadata) of every row; an InputError in the place of one that is bad."""
    path = tmp_path / name
    path.write_bytes(data)
    found = each(jsonl.read(replace(source_of(path), options=Options(**options))))
    return [(bytes(r.elements), r.header.metadata) if isinstance(r, Record) else r for r in found]


def there_and_back(path):
    """What is written of the rows once their headers went through the corpus."""
    back = []
    for record in records_of(jsonl, path):
        decoded = headers.decode(headers.encode(record.header, payload=0, next=0), "here")
        back.append(Record(decoded, np.array(record.elements)))
    return jsonl.write(back, path.with_name("back")).read_bytes()


def test_the_text_is_the_payload_and_the_rest_is_typed(tmp_path):
    """The text is there unescaped; the other columns keep their types, nested ones too."""
    row = {"text": 'ü\n"', "n": None, "i": 2**70, "f": 1.0, "o": {"l": [1, "1", False]}}
    [(payload, metadata)] = rows_of(tmp_path, json.dumps(row).encode() + b"\n")
    assert payload.decode() == row.pop("text")
    assert json.dumps(metadata["columns"], sort_keys=True) == json.dumps(row, sort_keys=True)
    assert metadata["text_column"] == "text"


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ('{"a": {"text": "no"}, "text": "yes"}', "text"),
        ('{"a": "\\"text\\": \\"no\\"", "text" : "yes"}', "text"),
        ('{"content": "yes", "title": "no"}', "content"),
        ('{"a": [{"text": "no"}], "content": "yes"}', "content"),
        ('{"content": "no", "a": [{"text": "no"}], "text": "yes"}', "text"),
    ],
)
def test_the_column_that_is_called_so_is_the_text(tmp_path, line, column):
    """Wherever the same name, or what looks like it, stands within other columns."""
    [(payload, metadata)] = rows_of(tmp_path, line.encode())
    assert (payload, metadata["text_column"]) == (b"yes", column)
    assert there_and_back(tmp_path / "a.jsonl") == line.encode()


def test_another_column_can_be_asked_for(tmp_path):
    """With ``text_column`` that column is the text, and no other one."""
    data = b'{"text": "t", "q": "question"}\n{"text": "t"}\n'
    (payload, metadata), whole = rows_of(tmp_path, data, text_column="q")
    assert (payload, metadata["columns"]) == (b"question", {"text": "t"})
    assert whole == (b'{"text": "t"}', {})


@pytest.mark.parametrize(
    "line",
    [
        '{"text": ""}',
        '{"text": null, "content": "c"}',
        '{"text": ["a"]}',
        '{"text": "\\ud800"}',
        '{"text": "a", "b": 1, "text": "c"}',
        '{"question": "q", "answer": "a"}',
        '{"text": "\\/ and /"}',
        "[1, 2]",
        '"text"',
        "{}",
        '{"n": %s}' % ("9" * 5000),
    ],
)
def test_a_row_without_a_text_goes_in_as_a_whole(tmp_path, line):
    """No such column, null, empty, no string, lone surrogates, twice: the line is the payload."""
    assert rows_of(tmp_path, b'{"a": 1}\n' + line.encode()) == [(b'{"a": 1}', {}), (line.encode(), {"end": ""})]


@pytest.mark.parametrize(
    "rest",
    [
        '"n": NaN',
        '"n": -Infinity',
        '"n": 1e400',
        '"n": 0.1000000000000000055511151231257827',
        '"n": %s' % ("9" * 5000),
        '"n": 1e999999999',
        '"d": {"a": 1, "a": 2}',
        '"s": "\\udc00"',
        '"l": ' + "[" * 150 + "]" * 150,
    ],
)
def test_what_a_header_cannot_hold_is_kept_as_it_is_written(tmp_path, rest):
    """NaN, numbers beyond float64, names twice, lone surrogates, deep nesting: no columns, but the same line again."""
    line = f'{{"text": "t", {rest}}}\n'.encode()
    [(payload, metadata)] = rows_of(tmp_path, line)
    assert payload == b"t"
    assert "columns" not in metadata
    assert there_and_back(tmp_path / "a.jsonl") == line


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"a": 1, "text": "t"}', {"columns"}),
        ('{"text": "t", "a": 1}', {"columns", "keys"}),
        ('{"a":1,"text":"\\u00fc"}', {"columns", "style"}),
        ('{"a":"ü","text":"ü"}', {"columns", "style"}),
        ('{"a": 1.50, "text": "t"}', {"columns", "around"}),
        ('{"a": {"c": 1, "b": 2}, "text": "t"}', {"columns", "around"}),
        ('{"a": "\\/", "text": "\\/\\/ \\u00fc"}', {"columns", "around", "escapes"}),
        ('{"a":"b","text":"\\u003c\\u003E <"}', None),
        ('{ "a" : "b" , "text" : "t" } ', {"columns", "around"}),
    ],
)
def test_only_what_is_needed_to_write_the_line_again_is_kept(tmp_path, text, kept):
    """A line as Python's json writes it costs its columns; others say how they differ, or are kept in full."""
    [(_, metadata)] = rows_of(tmp_path, text.encode() + b"\n")
    assert (set(metadata) - {"text_column", "end"} == kept) if kept else not metadata
    assert there_and_back(tmp_path / "a.jsonl") == text.encode() + b"\n"


SMALL = st.text(max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SMALL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SMALL, inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["text", "content", "a", "ü"]), VALUES), min_size=2, max_size=4),
    unicode=st.booleans(),
    compact=st.booleans(),
    slashes=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    last=st.booleans(),
)
def test_any_rows_come_back_byte_for_byte(tmp_path_factory, rows, unicode, compact, slashes, end, last):
    """Whatever JSON can say, in whatever common style."""
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    written = [json.dumps(r, ensure_ascii=not unicode, separators=(",", ":") if compact else None) for r in rows]
    text = "".join(line + end for line in written)
    text = text.replace("/", "\\/") if slashes else text
    data = (text if last else text.removesuffix(end)).encode(errors="ignore")
    path.write_bytes(data)
    assert len(records_of(jsonl, path)) == len(rows)
    assert there_and_back(path) == data


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"text": "t"', "expected a JSON value"),
        (b'{"text": "\xff"}', "UTF-8"),
        (b'{"text": "t"} {"text": "u"}', "Extra data"),
        (b'{"text": "a\tb"}', "control character"),
        (b"[" * 5000 + b"]" * 5000, "nested"),
        (b'{"text": "t", "a": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
        (b"\0\0\0", "JSON"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path, line, found):
    """The others go in and keep their numbers."""
    first, error, last = rows_of(tmp_path, b'{"text": "1"}\n\n' + line + b'\n{"text": "3"}\n')
    assert (first[0], last[0]) == (b"1", b"3")
    assert isinstance(error, InputError)
    assert "a.jsonl: line 3: " in str(error)
    assert found in str(error)
    [one, three] = [r.header.record for r in each(jsonl.read(source_of(tmp_path / "a.jsonl"))) if isinstance(r, Record)]
    assert (one, three) == ("a/name#1", "a/name#3")


def test_a_line_that_is_too_long_is_refused_without_being_held(tmp_path):
    """The rest of it is passed over; it goes in with a higher limit."""
    data = b'{"text": "1"}\n{"text": "%s"}\n{"text": "3"}\n' % (b"x" * 1000)
    first, error, last = rows_of(tmp_path, data, limits=Limits(max_line=64))
    assert (first[0], last[0]) == (b"1", b"3")
    assert "line 2: expected at most 64 bytes" in str(error)
    assert "raise --max-line" in str(error)
    assert len(rows_of(tmp_path, data, limits=Limits(max_line=2000))[1][0]) == 1000


def test_what_comes_before_a_cut_goes_in(tmp_path):
    """Rows and refusals in their order up to where the compressed file ends, then one error for the file."""
    random = np.random.default_rng(0)
    lines = [b'{"text": "%d", "n": "%s"}\n' % (n, random.bytes(40).hex().encode()) for n in range(1, 3001)]
    lines[699] = b"bad\n"
    data = gzip.compress(b"".join(lines))
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) * 3 // 4])
    got = []
    with pytest.raises(InputError):
        got.extend(each(jsonl.read(source_of(tmp_path / "a.jsonl.gz"))))
    assert 1024 < len(got) < 3000
    assert "line 700: " in str(got.pop(699))
    for number, record in enumerate(got, 1):
        assert bytes(record.elements).decode() == str(number + (number > 699))
        assert record.header.record == f"a/name#{number + (number > 699)}"


def test_a_file_of_bad_lines_ends_in_one_error(tmp_path, monkeypatch):
    """A report does not grow without bound."""
    monkeypatch.setattr(jsonl, "MOST_REFUSED", 3)
    with pytest.raises(InputError, match="line 4"):
        rows_of(tmp_path, b"bad\n" * 100)


@pytest.mark.parametrize(
    ("name", "data", "module"),
    [
        ("a.json", b'{"a": 1}\n{"a": 2}\n', jsonl),
        ("a.log", b'{"a": 1}\n{"a": 2}', jsonl),
        ("a.jsonl", b'{"a": 1}', jsonl),
        ("a.jsonl", b"1\n2\n", jsonl),
        ("a.json", b'{"a": 1}\n', plain),
        ("a.json", b'{\n"a": 1}\n', plain),
        ("a.json", b'[\n{"a": 1},\n{"a": 2}\n]', plain),
        ("a.txt", b"{a}\n{b}\n", plain),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), plain),
    ],
)
def test_lines_are_told_from_a_document(tmp_path, name, data, module):
    """By content; by the name where one line could be either."""
    (tmp_path / name).write_bytes(data)
    assert formats.recognise(Source(tmp_path / name, "a")) is module


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_document_of_one_long_line_is_plain_text(tmp_path, end):
    """The head cannot tell it from a long row; reading on can."""
    path = tmp_path / "a.json"
    path.write_bytes(b'{"text": "%s"}' % (b"x" * 9999) + end)
    [record] = records_of(jsonl, path)
    assert (record.header.record, record.header.format, record.header.metadata["kind"]) == ("a/name", "text", "json")


def test_real_rows_are_those_of_json(shared_data):
    """Every row of real files is what json.loads makes of its line."""
    for name, count in [("dolma_documents_000.json.gz", 10), ("gsm8k_test.jsonl", 1319), ("test.jsonl.zst", 1)]:
        source = source_of(shared_data / "text" / name)
        with source.open() as file:
            expected = [json.loads(line) for line in file]
        records = list(each(jsonl.read(source)))
        assert len(records) == count
        for record, row in zip(records, expected, strict=True):
            metadata, payload = record.header.metadata, bytes(record.elements)
            column = metadata.get("text_column")
            assert ({**metadata["columns"], column: payload.decode()} if column else json.loads(payload)) == row
