"""WARC: one record a WARC record, blocks and headers as they are stored."""

import gzip
import io
from dataclasses import replace

import pytest
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import WARCWriter

from aunn_data.errors import InputError
from pipelines.options import Limits, Options
from pipelines.text import warc
from tests.format_contract import Example, FormatContract, records_of, source_of


def raw(block, *fields, version="WARC/1.0", length=None):
    """A record's bytes."""
    lines = [version, "WARC-Type: resource", *fields, f"Content-Length: {len(block) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + block + b"\r\n\r\n"


def example(name, data, records):
    return Example(name, warc, lambda path: path.write_bytes(data), records)


HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a\r\nSet-Cookie: \xfc\r\n\r\n<p>hello\r\n\r\n"
RECORDS = (
    raw(b"WARC/1.0\r\n inside\r\n\r\n", "WARC-Target-URI: http://ü/")
    + raw(HTTP, "Content-Type: application/http;msgtype=response")
    + raw(b"", "WARC-Type: revisit")
    + raw(b"chunk", "X-Folded: a\r\n b", "x-nothing:", "Spaced :  c ", version="WARC/1.1")
)
EXAMPLES = [
    example("a.warc", RECORDS, 4),
    example("lf.warc", b"WARC/1.0\nContent-Length:2\nX: \xfc\n\nab\n\n\n", 1),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestWarc(FormatContract):
    """The contract over records of all kinds."""


def made(tmp_path, data, name="a.warc"):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize(
    "data", [RECORDS, RECORDS[:-4], RECORDS[:-2], RECORDS.replace(b"\r\n\r\nWARC/1.1", b"\nWARC/1.1")]
)
def test_it_is_written_byte_for_byte(tmp_path, data):
    """Headers with all their peculiarities, blocks, what stands between records."""
    assert warc.write(records_of(warc, made(tmp_path, data)), tmp_path / "b").read_bytes() == data


def test_the_block_is_the_payload_and_the_headers_are_told(tmp_path):
    """WARC's fields in order; of an HTTP block also the head, with what is said twice."""
    record = records_of(warc, made(tmp_path, RECORDS))[1]
    metadata = record.header.metadata
    assert record.header.record == "a/name#2"
    assert bytes(record.elements) == HTTP
    assert metadata["warc"]["fields"][0] == ["WARC-Type", "resource"]
    assert metadata["http"]["start"] == "HTTP/1.1 200 OK"
    assert [name for name, _ in metadata["http"]["fields"]] == ["Content-Type", "Set-Cookie", "Set-Cookie"]
    assert HTTP[metadata["http"]["bytes"] :] == b"<p>hello\r\n\r\n"


def test_an_empty_block_leaves_the_header_as_payload(tmp_path):
    """A record of no bytes there cannot be."""
    record = records_of(warc, made(tmp_path, RECORDS))[2]
    assert bytes(record.elements).startswith(b"WARC/1.0\r\n")
    assert record.header.metadata["block"] == "empty"


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_a_big_block_is_mapped(tmp_path, monkeypatch, name):
    """It is not held in memory; the records behind it are found."""
    monkeypatch.setattr(warc, "HELD_BYTES", 100)
    data = raw(b"before") + raw(bytes(range(256)) * 8192) + raw(b"after")
    path = made(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    records = records_of(warc, path)
    assert [bytes(r.elements[:]) for r in records] == [b"before", bytes(range(256)) * 8192, b"after"]
    assert records[1].elements.__class__.__name__ == "memmap"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (raw(b"abc", length=10**15), "1,000,000,000,000,000"),
        (raw(b"abc", length=400), "the file's end"),
        (raw(b"abc", length=1), "WARC/1.0 or the like"),
        (raw(b"abc", length="x"), "Content-Length"),
        (raw(b"abc", length=-1), "Content-Length"),
        (raw(b"abc", "Content-Length: 3"), "one Content-Length"),
        (raw(b"abc") + b"trailing", "trailing"),
        (raw(b"abc", "no colon"), "no colon"),
        (raw(b"abc")[:30], "blank line"),
        (raw(b"abc", "X: " + "x" * (1 << 20)), "blank line"),
        (b"WARC/1.0\r\nContent-Length: 3\r\n\r\nabcWARC/1.0\r\n", "line ends"),
    ],
)
def test_a_damaged_record_is_refused_after_those_before_it(tmp_path, data, found):
    """warcio takes some of them for shorter ones; the error names the record."""
    source = replace(
        source_of(made(tmp_path, raw(b"good") + data)), options=Options(limits=Limits(max_elements=10**12))
    )
    read, got = warc.read(source), []
    with pytest.raises(InputError, match=found) as error:
        got.extend(read)
    assert bytes(next(warc.read(source)).elements) == b"good"
    assert "a.warc#" in str(error.value)


def test_a_cut_member_is_refused(tmp_path):
    """Where the compressed file ends too early, what came before goes in."""
    members = [gzip.compress(raw(block * 999)) for block in (b"one", b"two")]
    read = warc.read(source_of(made(tmp_path, members[0] + members[1][:-9], "a.warc.gz")))
    with pytest.raises(InputError, match="compressed file that is whole"):
        list(read)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # warcio leaves a scratch file open
def test_what_warcio_writes_is_read_the_same(tmp_path):
    """Response and revisit, compressed by record."""
    with (tmp_path / "a.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for uri in ("http://a/", "http://b/"):
            block = io.BytesIO(HTTP.replace(b"\xfc", b"u"))
            writer.write_record(writer.create_warc_record(uri, "response", payload=block))
    assert_like_warcio(tmp_path / "a.warc.gz", 2)


@pytest.mark.parametrize(("name", "count"), [("example.warc.gz", 6), ("sample-0000.warc.gz", 48)])
def test_real_archives_are_those_of_warcio(shared_data, tmp_path, name, count):
    """Blocks and headers equal warcio's, which takes the angles off an address; the bytes inside come back."""
    path = shared_data / "text" / name
    assert_like_warcio(path, count)
    assert warc.write(records_of(warc, path), tmp_path / "b").read_bytes() == gzip.decompress(path.read_bytes())


def assert_like_warcio(path, count):
    records = records_of(warc, path)
    assert len(records) == count
    with path.open("rb") as file:
        for record, theirs in zip(records, ArchiveIterator(file, no_record_parse=True), strict=True):
            fields = [
                (k, v.strip("<>") if k == "WARC-Target-URI" else v) for k, v in record.header.metadata["warc"]["fields"]
            ]
            assert fields == theirs.rec_headers.headers
            assert bytes(record.elements) == theirs.raw_stream.read()
