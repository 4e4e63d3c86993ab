"""What every format must do, written once. A format's tests run it over small examples and over real files::

@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestNrrd(FormatContract): ...
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aunn_data import header as headers
from aunn_data import payload
from aunn_data.errors import InputError
from aunn_data.geometry import LAYOUTS
from aunn_data.record import Record
from pipelines import formats
from pipelines.records import each
from pipelines.source import Source
from pipelines.walk import walk

BLOCK = 1 << 14
# What a picture keeps even where it must become another format (a JPEG becomes a PNG).
PICTURE = ("mode", "palette", "transparency", "icc_profile", "orientation", "white")


@dataclass(frozen=True)
class Example:
    """A file (or folder) of a format: the module it belongs to, how to make it, how many records it holds.

    With no way to make it, ``name`` is that of a real file below shared/data. ``companions`` are copied beside that.
    ``faithful``: written back it is of the same format and says all that it said. ``checked``: half of it is refused.
    """

    name: str
    module: Any
    make: Callable[[Path], object] | None = None
    records: int = 1
    faithful: bool = True
    checked: bool = True
    companions: tuple[str, ...] = ()

    def __str__(self):
        return self.name


def source_of(path, name="a/name"):
    """The source that a walk makes of a file or folder, with all that belongs to it."""
    [found] = walk([path], "")
    return replace(found, name=name)


def victim(path):
    """The file to damage: the file itself, the biggest one of a folder."""
    return path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def records_of(module, path, name="a/name"):
    """All records; an InputError in the place of one is raised."""
    found = list(each(module.read(source_of(path, name))))
    for record in found:
        if isinstance(record, InputError):
            raise record
    return found


def stored(record, layout):
    """The payload's bytes as a corpus would store them, in blocks."""
    geometry = replace(record.header.geometry, layout=layout)
    out = np.zeros(geometry.extent, np.uint8)
    for start, stop in payload.blocks(geometry, BLOCK):
        block = payload.encode(geometry, record.elements, start, stop, record.missing)
        if block is not None:
            out[start:stop] = block
    return geometry, out


def through_the_corpus(record, layout):
    """The record as it comes back from a corpus."""
    geometry, data = stored(record, layout)
    elements = payload.decode(geometry, lambda start, stop: data[start:stop], geometry.whole)
    if record.missing is not None:
        elements = payload.restore_missing(geometry, elements, np.asarray(record.missing))
    return Record(record.header, elements, record.missing)


def bits(array):
    """The bytes of an array-like, in order."""
    return np.ascontiguousarray(array[...]).tobytes()


def refusals(module, path):
    """Reads a file as ingest would, to the last byte; all InputErrors that this gives. Anything else goes through."""
    found = []
    try:
        for record in each(module.read(source_of(path))):
            if isinstance(record, InputError):
                found.append(record)
            else:
                headers.encode(record.header, payload=0, next=0)
                stored(record, "packed")
    except InputError as error:
        found.append(error)
    return [str(error) for error in found]


class FormatContract:
    """Run with the parameter ``example``."""

    @pytest.fixture
    def path(self, example, tmp_path, request):
        """The example, made or copied to a folder of its own."""
        home = tmp_path / "given"
        home.mkdir()
        if example.make is not None:
            example.make(home / example.name)
            return home / example.name
        shared = request.getfixturevalue("shared_data")
        for name in (*example.companions, example.name):
            there = home / Path(name).name
            (shutil.copytree if (shared / name).is_dir() else shutil.copyfile)(shared / name, there)
        return there

    def test_only_its_own_format_claims_it(self, example, path):
        """The first of all formats that says yes to the file is its own, whatever the file is called."""
        assert formats.recognise(source_of(path)) is example.module
        if path.is_file() and not source_of(path).files:
            other = path.with_name("another.name")
            path.rename(other)
            assert formats.recognise(Source(other, "a/name")) is example.module

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_elements_come_back_from_their_bytes(self, example, path, layout):
        """In every layout decode(encode(elements)) has the same bits, and the geometry tells type and shape."""
        records = records_of(example.module, path)
        assert len(records) == example.records
        for record in records:
            geometry = record.header.geometry
            assert np.dtype(geometry.dtype).str == geometry.dtype
            assert np.asarray(record.elements[...]).dtype == np.dtype(geometry.dtype)
            assert record.elements.shape == geometry.shape
            assert bits(through_the_corpus(record, layout).elements) == bits(record.elements)
            if record.missing is not None:
                assert np.asarray(record.missing[...]).dtype == np.bool_
                assert record.missing.shape == geometry.shape

    def test_what_is_written_reads_the_same(self, example, path, tmp_path):
        """read -> corpus -> write -> read gives equal geometry, elements, marks and metadata."""
        records = records_of(example.module, path)
        (tmp_path / "out").mkdir()
        back = [through_the_corpus(record, "padded") for record in records]
        written = example.module.write(back, tmp_path / "out" / path.name)
        assert written.exists()
        assert list((tmp_path / "out").iterdir()) == [written]
        for before, after in zip(records, records_of(example.module, written), strict=True):
            assert bits(after.elements) == bits(before.elements)
            assert (after.missing is None) == (before.missing is None)
            assert after.missing is None or bits(after.missing) == bits(before.missing)
            if example.faithful:
                assert written.name == path.name
                assert after.header == before.header
            else:
                assert after.header.geometry == before.header.geometry
                old, new = before.header.metadata, after.header.metadata
                assert {key: new.get(key) for key in PICTURE} == {key: old.get(key) for key in PICTURE}

    def test_a_header_is_deterministic_and_round_trips(self, example, path):
        """Two reads give one header; decode(encode(header)) is it; it names no place, time or digest of this file."""
        once, twice = (records_of(example.module, path) for _ in range(2))
        assert [r.header for r in once] == [r.header for r in twice]
        assert [r.header.line() for r in once] == [r.header.line() for r in twice]
        for record in once:
            encoded = headers.encode(record.header, payload=4096, next=8192)
            assert headers.decode(encoded, "here") == record.header
            assert record.header.source == "a/name"
            assert record.header.format in example.module.FORMATS
            assert record.header.modality == example.module.MODALITY
            assert str(path.parent).encode() not in encoded
        assert len({record.header.record for record in once}) == len(once)

    def test_cut_short_it_is_refused_in_one_line(self, example, path):
        """Wherever the file ends too early, there is one InputError of one line, or whole records."""
        cut = victim(path)
        data = cut.read_bytes()
        for keep in (0, 1, 7, len(data) // 3, len(data) // 2, len(data) - 1):
            cut.write_bytes(data[:keep])
            errors = refusals(example.module, path)
            assert not any("\n" in error for error in errors)
            if example.checked and keep <= len(data) // 2:
                assert len(errors) == 1
                assert re.search("expected .+; found .+; .+", errors[0])

    @settings(
        deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(damage=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4))
    def test_damaged_it_raises_nothing_but_input_errors(self, example, path, damage):
        """Any bytes changed anywhere: the file is refused with an InputError, or read."""
        hurt, whole = victim(path), path.parent.parent / "whole"
        if not whole.exists():
            whole.write_bytes(hurt.read_bytes())
        data = bytearray(whole.read_bytes())
        for position, value in damage:
            data[position % len(data)] = value
        hurt.write_bytes(data)
        assert not any("\n" in error for error in refusals(example.module, path))
