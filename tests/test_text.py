"""What is text, in which encoding, and what is not."""

import os
import zlib

import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.text import plain
from tests.format_contract import records_of

ENCODINGS = {
    b"plain ASCII\r\n": "utf-8",
    "Grüße, 日本語, 🙂".encode(): "utf-8",
    "\ufeffmarked".encode(): "utf-8-sig",
    "sechzehn".encode("utf-16"): "utf-16",
    b"\xfe\xff" + "sechzehn".encode("utf-16-be"): "utf-16",
    "zweiunddreißig".encode("utf-32"): "utf-32",
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
