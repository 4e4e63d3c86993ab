"""A source -> its records: archives unpacked, the format found, sidecars and marks joined, as the options say.

Only what the options ask for is changed: ``fill`` marks elements as missing, ``window`` makes 8-bit scans.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aunn_data.errors import InputError
from aunn_data.record import Record, Records
from pipelines import archives, formats
from pipelines.asked import changed, is_asked
from pipelines.source import Source
from pipelines.walk import walk


def leaves(source: Source) -> Iterator[Source | InputError]:
    """The source, or if it is an archive what is in it, archives in it included."""
    try:
        archive = not source.path.is_dir() and archives.is_archive(source.head) and not _claimed(source)
    except InputError as error:
        yield error
        return
    if not archive:
        yield source
    elif source.depth >= archives.MOST_DEPTH:
        yield InputError(
            source.label,
            expected=f"at most {archives.MOST_DEPTH} archives within one another",
            found="more",
            remedy="unpack it by hand if you trust it",
        )
    else:
        folder = Path(tempfile.mkdtemp(dir=source.scratch.folder))
        yield from archives.unpack(source, folder)
        for found in walk([folder], "", source.options, parent=source):
            if isinstance(found, InputError):
                yield relabelled(found, source, folder)
            else:
                yield from leaves(found)


Found = Record | Records | InputError
"""What a reader gives: a record, some as columns, or what cannot go in."""


def each(found: Iterable[Found]) -> Iterator[Record | InputError]:
    """One by one, those that came as columns too."""
    for some in found:
        if isinstance(some, Records):
            yield from some
        else:
            yield some


def records_of(source: Source) -> Iterator[Found]:
    """The records of a source that is no archive, as its format's reader gives them and the options ask for."""
    yield from finished(source, formats.recognise(source).read(source))


def finished(source: Source, records: Iterator[Found]) -> Iterator[Found]:
    """What a format's reader gives, with what joins it; whatever it raises refuses its file and no other."""
    mask = None if source.mask is None else _mask(source, source.mask)
    asked = is_asked(source, mask)
    kept = _kept(source) if source.sidecars or source.codecs else {}
    try:
        for found in each(records) if asked else records:
            if isinstance(found, InputError):
                yield relabelled(found, source, source.path)
                continue
            if asked and isinstance(found, Record):
                try:
                    found = changed(found, source, mask)
                except InputError as error:
                    yield error
                    continue
            if kept:  # put into the reader's own dicts: a new header and record would take longer than a small record
                for metadata in found.metadata if isinstance(found, Records) else (found.header.metadata,):
                    metadata.update(kept)
            yield found
    except InputError as error:
        raise relabelled(error, source, source.path) from error
    except Exception as error:  # a fault of ours refuses its file, not the good ones beside it
        raise InputError(
            source.label,
            expected="a file that its reader understands or refuses",
            found=f"{type(error).__name__}: {error}",
            remedy="report it with the file: this is a fault of the reader",
        ) from error
    finally:
        source.let_go()


def _kept(source: Source) -> dict[str, Any]:
    """What joins the header of every record."""
    kept: dict[str, Any] = {}
    if source.sidecars:
        kept["sidecars"] = {path.name.removeprefix(source.inner.stem): _note(path) for path in source.sidecars}
    if source.codecs:
        kept["compression"] = list(source.codecs)
    return kept


def _mask(source: Source, path: Path) -> Record | None:
    """The one record of the mask beside a scan."""
    beside = Source(path, path.name, source.options, scratch=source.scratch)
    for found in each(formats.recognise(beside).read(beside)):
        if isinstance(found, InputError):
            raise found
        return found
    return None


def relabelled(error: InputError, source: Source, path: Path) -> InputError:
    """The error with what the user knows in the place of the path of something unpacked."""
    for there in {path, source.__dict__.get("_unpacked", path)}:
        if error.where.startswith(str(there)) and source.label != str(there):
            where = source.label + error.where.removeprefix(str(there))
            return InputError(where, expected=error.expected, found=error.found, remedy=error.remedy)
    return error


def _claimed(source: Source) -> bool:
    """Is it a format that is a zip (.npz)?"""
    return any(format.sniff(source.head, source.inner) for format in formats.ALL)


def _note(path: Path) -> str:
    return path.read_bytes().decode()
