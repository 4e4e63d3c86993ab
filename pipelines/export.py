"""Records back into files of their own format."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import AunnError, InputError
from aunn_data.record import Record
from pipelines import compressed, formats
from pipelines.exchange import KINDS, write_as
from pipelines.walk import MASK


@dataclass
class Exported:
    """The file of each record, and what could not be written."""

    files: list[tuple[Entry, Path]] = field(default_factory=list)
    refused: list[tuple[str, AunnError]] = field(default_factory=list)


def export(
    corpus: Corpus,
    entries: Sequence[Entry],
    folder: Path,
    overwrite: bool = False,
    on_record: Callable[[Entry], object] = lambda entry: None,
) -> Exported:
    """Writes records below a folder, those of one source into one file, in order. Bad ones land in ``refused``."""
    done, made = Exported(), set[Path]()
    for source, group in groupby(entries, key=lambda entry: entry.source):
        members = list(group)
        try:
            path = path_below(folder, source.replace("::", "/"), overwrite)
            records = [corpus.record(entry) for entry in members]
            path = _placed(path, overwrite, made, partial(write, records))
            done.files.extend((entry, path) for entry in members)
        except (AunnError, OSError) as error:
            done.refused.append((source, _as_input_error(source, error)))
        for entry in members:
            on_record(entry)
    return done


def export_as(
    corpus: Corpus,
    entries: Sequence[Entry],
    folder: Path,
    name: str,
    overwrite: bool = False,
    on_record: Callable[[Entry], object] = lambda entry: None,
) -> Exported:
    """Writes each record into a file of its own, of another format (``exchange.KINDS``)."""
    done, made = Exported(), set[Path]()
    for entry in entries:
        try:
            path = path_below(folder, entry.record.replace("::", "/") + KINDS[name].suffix, overwrite)
            written = _placed(path, overwrite, made, partial(write_as, corpus.record(entry), name))
            done.files.append((entry, written))
        except (AunnError, OSError) as error:
            done.refused.append((entry.record, _as_input_error(entry.record, error)))
        on_record(entry)
    return done


def write(records: Sequence[Record], path: Path) -> Path:
    """All records of a source as its file, compressed as it was, its sidecars beside it. Returns the path written."""
    header = records[0].header
    codecs, inner = header.metadata.get("compression", []), path
    for _ in codecs:
        inner = compressed.inner_name(inner)
    for suffix, text in header.metadata.get("sidecars", {}).items():
        path_below(path.parent, f"{inner.stem}{suffix}", overwrite=True).write_text(text, "utf-8", newline="")
    if "mask" in header.metadata and records[0].missing is not None:
        np.save(inner.with_name(f"{inner.stem}{MASK}.npy"), np.asarray(records[0].missing).astype(np.uint8))
    if "window" in header.metadata:  # no longer the numbers that its own format's header speaks of
        return write_as(records[0], "nifti", path.with_name(f"{path.name}.nii"))
    format = formats.named(header.format)
    if not codecs:
        return format.write(records, inner)
    with tempfile.TemporaryDirectory(prefix=".aunn-", dir=path.parent) as folder:  # a file called so may lie beside it
        written = format.write(records, Path(folder, inner.name))
        own = written.name == inner.name
        for codec in reversed(codecs) if written.is_file() else ():
            packed = written.with_name(f"{written.name}.{codec}")
            compressed.compress(written, codec, packed)
            written = packed
        return written.rename(path if own else path.with_name(written.name))


def _placed(path: Path, overwrite: bool, made: set[Path], write: Callable[[Path], Path]) -> Path:
    """Has a file written, with what comes beside it, where nothing else is, and then moved to where it belongs.

    Its name may get another suffix on the way. InputError if a file is called so, be it one of those ``made`` before.
    """
    with tempfile.TemporaryDirectory(prefix=".aunn-", dir=path.parent) as folder:
        written = write(Path(folder, path.name))
        moves = [(found, path.with_name(found.name)) for found in sorted(Path(folder).iterdir())]
        for _, there in moves:
            if there in made or (os.path.lexists(there) and not overwrite):
                other = ", which another record was written to just now" if there in made else ""
                remedy = "another --out" if there in made else "--overwrite or another --out"
                raise InputError(there, expected="no such file yet", found=f"one{other}", remedy=f"use {remedy}")
        for found, there in moves:
            if found.is_dir() and there.is_dir():
                shutil.copytree(found, there, dirs_exist_ok=True)
            else:
                found.replace(there)
            made.add(there)
    return path.with_name(written.name)


def path_below(folder: Path, source: str, overwrite: bool) -> Path:
    """The file for a source below a folder; InputError if it would lie outside or is there already."""
    path = folder / source
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise InputError(
            source, expected="a name below the folder", found="one that leads out", remedy="do not trust it"
        )
    if path.exists() and not overwrite:
        raise InputError(path, expected="no such file yet", found="one", remedy="use --overwrite or another --out")
    for above in [folder, *(folder / name for name in reversed(path.relative_to(folder).parents))]:
        above.mkdir(parents=above == folder, exist_ok=True)  # mkdir's own way down recurses, and names may be deep
    return path


def _as_input_error(source: str, error: Exception) -> AunnError:
    if isinstance(error, AunnError):
        return error
    return InputError(source, expected="to write the file", found=str(error), remedy="check the folder")
