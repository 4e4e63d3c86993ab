"""Data files that NRRD and MetaImage headers name: one, a LIST of lines, or a printf pattern with a range."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

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


def all_there(folder: Path, names: Sequence[str]) -> bool:
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
