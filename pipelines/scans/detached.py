"""Headers of NRRD and MetaImage whose voxels lie in other files, which they name: one, a LIST, or a printf pattern."""

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from pipelines.scans.voxels import check, companion, unpacked
from pipelines.source import Group, Source

HEADER_BYTES = 1 << 16  # of most headers
MOST_GATHERED = 100_000
Part = Callable[[Source, tuple[int, ...]], tuple[npt.NDArray[Any], int]]
"""What one data file holds: so many voxels, and the number of bytes after them."""

PATTERN = re.compile(r"(?P<name>\S.*%.*?)\s+(?P<range>-?\d+\s+-?\d+\s+-?\d+)(?:\s+(?P<axes>\d+))?")
MOST_LETTERS = 1024
LIST = re.compile(r"LIST(?:\s+(?P<axes>\d+)(?:D)?)?")
NUMBER = re.compile(r"%(?:%|(?P<zero>0?)(?P<width>\d{0,2})[diu])")


def data_files(value: str, listed: Sequence[str], shape: Sequence[int], most: int) -> tuple[str, ...]:
    """The names, in order. ValueError if they are more than ``most``, or not as many as a shape (fastest first) needs.

    ``listed`` are the lines that follow. Each file holds the samples of the first axes, all but the last if not said.
    """
    match = LIST.fullmatch(value)
    if match:
        names = [line.strip() for line in listed if line.strip()]
    elif len(value) < MOST_LETTERS and (match := PATTERN.fullmatch(value)):
        numbers = _numbers(match["range"], most)
        names = [NUMBER.sub(lambda m, n=n: _spelt(m, n), match["name"]) for n in numbers]
    else:
        return (value,)
    axes = int(match["axes"] or len(shape) - 1)
    expected = math.prod(shape[axes:])
    cut = axes == len(shape) and names and shape[-1] % len(names) == 0  # slabs along the last axis
    if not names or len(names) > most or not (cut or (len(names) == expected and 0 < axes < len(shape))):
        raise ValueError(f"{len(names)} data files of {axes} axes each for sizes {tuple(shape)}")
    return tuple(names)


def gathered(
    folder: Path, files: Sequence[str], suffixes: tuple[str, ...], names_of: Callable[[bytes], Sequence[str]]
) -> Iterator[Group]:
    """Headers with the data files that ``names_of`` finds in their first bytes.

    One that cannot be read, or whose files are not there, stays alone, to be refused.
    """
    for file in files:
        if not file.lower().endswith(suffixes):
            continue
        try:
            with (folder / file).open("rb") as found:
                there = names_of(found.read(HEADER_BYTES))
        except (OSError, ValueError, KeyError, InputError):
            continue
        if there and _all_there(folder, there):
            yield Group(file, (file, *there))


def joined(
    source: Source, names: Sequence[str], packed: bool, part: Part, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[npt.NDArray[Any], int]:
    """The voxels of all data files one after another, and the number of bytes after them."""
    files = [companion(source, name, packed) for name in names]
    if len(files) == 1:
        return part(files[0], shape)
    each = (math.prod(shape) // len(files),)
    check(source, shape, 1, len(files) * source.options.limits.max_elements)
    return unpacked((_exactly(part, file, each) for file in files), dtype, shape, source)


def _exactly(part: Part, source: Source, shape: tuple[int, ...]) -> memoryview:
    voxels, after = part(source, shape)
    if after:
        found, remedy = f"{after} bytes more", "restore it, or correct the header's sizes"
        raise InputError(source.label, expected="no more than its part", found=found, remedy=remedy)
    return voxels.view(np.uint8).data


def _all_there(folder: Path, names: Sequence[str]) -> bool:
    """Are they files of this folder or below it? Those that lead out are for ``Source.beside`` to refuse."""
    home = os.path.join(os.path.realpath(folder), "")
    return all(
        "\0" not in name
        and not Path(name).is_absolute()
        and os.path.realpath(folder / name).startswith(home)
        and ".." not in Path(name).parts
        and (folder / name).is_file()
        for name in names
    )


def _numbers(text: str, most: int) -> range:
    first, last, step = map(int, text.split())
    numbers = range(first, last + (1 if step > 0 else -1), step)
    if (last - first) // step >= most or not numbers:
        raise ValueError(f"data files from {first} to {last} by {step}")
    return numbers


def _spelt(match: re.Match[str], number: int) -> str:
    if match[0] == "%%":
        return "%"
    return format(number, f"{match['zero']}{match['width']}d")
