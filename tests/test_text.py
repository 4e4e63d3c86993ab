"""What is text, in which encoding, and what is not."""

import codecs
import gzip
import os
import zlib

import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.text import legacy, plain
from tests.format_contract import records_of

ENCODINGS = {
    b"plain ASCII\r\n": "utf-8",
    "Grüße, 日本語, 🙂".encode(): "utf-8",
    "\ufeffmarked".encode(): "utf-8-sig",
    "sechzehn".encode("utf-16"): "utf-16",
    b"\xfe\xff" + "sechzehn".encode("utf-16-be"): "utf-16",
    "zweiunddreißig".encode("utf-32"): "utf-32",
    ("Größe und Länge, " * 9).encode("utf-16-le"): "utf-16-le",
    ("Größe und Länge, " * 9).encode("utf-16-be"): "utf-16-be",
    ("Съешь ещё этих булок " * 9).encode("utf-16-le"): "utf-16-le",
    "Bäume und Vögel".encode("latin-1"): "unknown-8bit",
    "Съешь ещё этих мягких булок".encode("koi8-r"): "unknown-8bit",
    "日本語の文章です。".encode("shift_jis"): "unknown-8bit",
    b"\x1b[31mred\x1b[0m and a bell \x07 in a log of some length": "utf-8",
}


@pytest.mark.parametrize(
    ("data", "encoding"), ENCODINGS.items(), ids=[f"{e}-{n}" for n, e in enumerate(ENCODINGS.values())]
)
def test_the_encoding_is_told_and_the_bytes_stay(tmp_path, data, encoding):
    """Text goes in and out byte for byte; the header says which encoding it is, as far as can be told."""
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert plain.sniff(data, path)
    (record,) = records_of(plain, path)
    assert record.header.metadata == {"encoding": encoding}
    assert (record.header.geometry.axes, record.header.geometry.layout) == (("byte",), "packed")
    assert plain.write([record], tmp_path / "b").read_bytes() == data


@pytest.mark.parametrize("size", [4095, 4096, 4097])
def test_a_character_cut_by_the_end_of_the_head_is_no_fault(tmp_path, size):
    """The head that is sniffed may end amid a character, of UTF-8 and of UTF-16."""
    assert plain.encoding_of(np.frombuffer(("ü" * 9999).encode()[:size], np.uint8), whole=False) == "utf-8"
    assert plain.encoding_of(np.frombuffer(("🙂" * 9999).encode("utf-16")[:size], np.uint8), whole=False) == "utf-16"


def test_a_character_cut_by_a_chunk_is_no_fault(monkeypatch):
    """Long files are decoded in chunks, whose ends fall anywhere."""
    monkeypatch.setattr(plain, "CHUNK_BYTES", 5)
    assert plain.encoding_of(np.frombuffer(("aü日🙂" * 9).encode(), np.uint8)) == "utf-8"


@pytest.mark.parametrize(
    "data",
    [
        b"text\0with a NUL",
        bytes(range(1, 32)) * 4,
        "sechzehn".encode("utf-16-le"),  # nothing tells its byte order
        zlib.compress(os.urandom(500)),
        b"\xff\xfe" + b"\x00\xdc" * 20,  # UTF-16's mark, then lone surrogates
        np.arange(32, 127).astype("<u2").repeat(9).tobytes(),  # small numbers
        np.random.default_rng(0).normal(1000, 99, 9999).astype("<i2").tobytes(),
        bytes.fromhex("28b52ffd0458e90000") + b"\x81\x02\x03\x04\x91\x92",
    ],
)
def test_binary_is_no_text(data):
    """NUL bytes, many control characters, compressed data: not text, whatever the name."""
    assert not plain.sniff(data, None)


def test_binary_behind_text_is_refused(tmp_path):
    """A head that reads as text does not make text of a binary file."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"header\n" * 1000 + bytes(1000))
    assert plain.sniff(path.read_bytes()[:4096], path)
    with pytest.raises(InputError, match="NUL"):
        records_of(plain, path)


def test_an_empty_file_is_refused(tmp_path):
    """No bytes, no record."""
    (tmp_path / "a.txt").touch()
    assert not plain.sniff(b"", tmp_path / "a.txt")
    with pytest.raises(InputError, match="at least one element"):
        records_of(plain, tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("koi8-r", "Съешь ещё этих мягких французских булок, да выпей же чаю. "),
        ("cp1251", "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства. "),
        ("big5", "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神對待。"),
        ("iso8859-1", "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg, öfter als ärgerlich ist. "),
    ],
)
def test_a_legacy_encoding_is_named_where_there_is_enough_of_it(tmp_path, encoding, text):
    """The best one that reads every byte, with what else it could be."""
    (tmp_path / "a.txt").write_bytes((text * 20).encode(encoding))
    [record] = records_of(plain, tmp_path / "a.txt")
    metadata = record.header.metadata
    assert metadata["encoding"] == encoding
    assert bytes(record.elements).decode(metadata["encoding"]) == text * 20
    assert 0 <= metadata["chaos"] < 0.2
    assert encoding not in metadata["alternatives"]


def test_the_whole_file_must_read_as_the_encoding_that_a_sample_is_in(tmp_path, monkeypatch):
    """A byte that Shift-JIS has not, behind the sample, makes it something else."""
    monkeypatch.setattr(legacy, "SAMPLE_BYTES", 1 << 10)
    data = ("どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。\n" * 200).encode("shift_jis")
    assert legacy.detect(np.frombuffer(data, np.uint8))["encoding"] in ("shift_jis", "cp932")
    changed = legacy.detect(np.frombuffer(data + b"\x81 \n" * 9, np.uint8))
    assert changed["encoding"] not in ("shift_jis", "cp932")


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("<html><head><meta charset='windows-1255'><p>שלום", "cp1255"),
        ("<meta http-equiv=Content-Type content='text/html; charset=EUC-KR'>안녕", "euc_kr"),
        ('<?xml version="1.0" encoding="ISO-8859-2"?><a>žluť</a>', "iso8859_2"),
        ("# -*- coding: cp1252 -*-\nx = 'é'", "cp1252"),
    ],
)
def test_a_declared_encoding_is_believed_if_it_reads_the_file(tmp_path, data, encoding):
    """HTML, XML and editors' marks say it; a declaration that cannot be true is passed over."""
    told = legacy.detect(np.frombuffer(data.encode(encoding), np.uint8))
    assert told["declared"]
    assert codecs.lookup(told["encoding"]) == codecs.lookup(encoding)
    false = data.encode(encoding).replace(b"\xe9", b"\x81") + (b"\xff\x81" if encoding != "cp1252" else b"\x81")
    wrong = legacy.detect(np.frombuffer(false, np.uint8))
    assert "declared" not in wrong or encoding == "iso8859_2"  # which has all bytes


@pytest.mark.parametrize("name", ["utf-8", "utf-7", "unicode_escape", "rot13", "idna", "nonsense", "\xff"])
def test_a_declaration_names_no_other_codec(name):
    """Python has codecs that are no encodings of text."""
    data = f"<meta charset={name}>é".encode("latin-1")
    assert legacy.detect(np.frombuffer(data, np.uint8)) == {"encoding": "unknown-8bit"}


def test_real_legacy_texts_are_read_as_what_they_are(shared_data):
    """As their collection names them."""
    expected = {"Big5__ude_1": "big5", "KOI8-R__ude_1": "koi8-r", "SHIFT_JIS__ude_1": "shift_jis"}
    for name, encoding in expected.items():
        [record] = records_of(plain, shared_data / "text" / "encodings" / f"{name}.txt")
        assert record.header.metadata["encoding"] == encoding
    [record] = records_of(plain, shared_data / "text" / "mars_german.latin1.txt")
    assert record.header.metadata["encoding"] == "iso8859-1"


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.md", b"# A", "markdown"),
        ("a.CSV", b"a,b", "csv"),
        ("a.html.gz", gzip.compress(b"a"), "html"),
        ("a", b" <!DOCTYPE html><p>", "html"),
        ("a.txt", b"<?xml version='1.0'?>", "xml"),
        ("a.txt", b"# A", None),
    ],
)
def test_the_kind_of_text_is_what_the_name_or_the_beginning_says(tmp_path, name, data, kind):
    """Nothing is guessed beyond that."""
    (tmp_path / name).write_bytes(data)
    [record] = records_of(plain, tmp_path / name)
    assert record.header.metadata.get("kind") == kind


@pytest.mark.parametrize("data", [b"a\r\nb\nc\rd", b"\r\r\r", b"no end", "a\u2028b\x85".encode(), b"\n"])
def test_line_ends_stay(tmp_path, data):
    """Of any kind, mixed or missing."""
    (tmp_path / "a.txt").write_bytes(data)
    assert plain.write(records_of(plain, tmp_path / "a.txt"), tmp_path / "b").read_bytes() == data
