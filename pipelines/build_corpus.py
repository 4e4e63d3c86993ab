"""A whole corpus from a corpus.toml, or the finish of what ``ingest`` gathered: checked, held out, described."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import CorpusError, RequestError
from aunn_data.geometry import LAYOUTS, Region
from aunn_data.registry import Holdout
from aunn_data.verify import verify
from pipelines.card import write_card
from pipelines.config import check_keys, read_toml
from pipelines.ingest import Report, Watch, ingest, open_or_create
from pipelines.options import Options

DEFAULT_HOLDOUT = "default"
MOST_DEFAULTS = 64  # records of one modality that get default holdouts
SPATIAL = {"z", "y", "x"}

# What a corpus.toml may say: key -> what its value must be.
_TOP = {"corpus": str, "address_bits": int, "source": list, "holdout": list}
_SOURCE = {"path": str, "layout": LAYOUTS, "chess": ("boards", "pgn"), "prefix": str}
_HOLDOUT = {"name": str, "record": str, "region": (str, list)}


@dataclass
class Built:
    """A finished corpus, the report of each source, the counts on its card."""

    corpus: Corpus
    reports: list[Report] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)


def build(config: Path | None, corpus: str, corpus_wins: bool, on_record: Callable[[], object] = lambda: None) -> Built:
    """Builds or finishes the corpus. ``corpus_wins``: the folder given stands above the one the file names."""
    plan = read_plan(config) if config else {}
    if config and "corpus" in plan and not corpus_wins:
        corpus = plan["corpus"] if "://" in plan["corpus"] else str(config.parent / plan["corpus"])
    built = Built(open_or_create(corpus, plan.get("address_bits")) if config else Corpus.open(corpus))
    for source in plan.get("source", []):
        options = Options(source.get("layout"), source.get("chess", "boards"), source.get("prefix", ""))
        assert config is not None
        report = ingest(
            [config.parent / source["path"]], built.corpus, options, watch=Watch(reading=lambda source: on_record())
        )
        built.reports.append(report)
    if not len(built.corpus.entries):
        raise RequestError(
            built.corpus.name, expected="at least one record", found="an empty corpus", remedy="ingest something first"
        )
    _check(built.corpus, on_record)
    built.corpus.add_holdouts([_holdout(built.corpus, row) for row in _regions(plan.get("holdout", []))])
    if not built.corpus.holdouts():
        built.corpus.add_holdouts(default_holdouts(built.corpus))
    built.corpus.registry.settle()  # what an earlier run did as well
    built.card = write_card(built.corpus)
    return built


def read_plan(path: Path) -> dict[str, Any]:
    """A corpus.toml, every key known and every value of its kind. RequestError if not."""
    plan = read_toml(path, _TOP)
    for kind, schema, needed in (("source", _SOURCE, ("path",)), ("holdout", _HOLDOUT, ("name", "record", "region"))):
        for number, row in enumerate(plan.get(kind, []), start=1):
            where = f"{path} [[{kind}]] {number}"
            check_keys(where, row, schema)
            for key in needed:
                if key not in row:
                    raise RequestError(where, expected=f"the key {key!r}", found="none", remedy="add it")
    return plan


def default_holdouts(corpus: Corpus) -> list[Holdout]:
    """About a fiftieth of up to 64 records a modality: blocks of a volume, a hole in an image, the end of a game, a
    passage of a text. Chosen by the record's name alone, so that the same corpus gets the same."""
    chosen: dict[str, list[Entry]] = {}
    for entry in corpus.entries:
        chosen.setdefault(entry.modality, []).append(entry)
    held = []
    for entries in chosen.values():
        step = -(-len(entries) // MOST_DEFAULTS)
        for entry in entries[::step]:
            held += [Holdout(DEFAULT_HOLDOUT, entry.record, region) for region in _default_regions(entry)]
    return held


def _default_regions(entry: Entry) -> list[Region]:
    shape, axes = entry.shape, entry.axes
    dice = random.Random(entry.record)
    if len(shape) == 1:
        length = min(1024, shape[0] // 50)
        return [((shape[0] // 2, shape[0] // 2 + length),)] if length else []
    if axes[0] == "ply":
        last = max(1, shape[0] // 10)
        return [((shape[0] - last, shape[0]), *entry.geometry.whole[1:])] if shape[0] > 1 else []
    spatial = SPATIAL if SPATIAL & set(axes) else set(axes)
    regions = []
    for _ in range(8 if "z" in axes else 1):
        region = []
        for axis, size in zip(axes, shape, strict=True):
            if axis not in spatial:  # a hole goes through every channel, but only through the first frame
                region.append((0, 1) if axis == "t" else (0, size))
                continue
            edge = max(1, size // 7)
            start = dice.randrange(size - edge + 1)
            region.append((start, start + edge))
        regions.append(tuple(region))
    return regions


def _check(corpus: Corpus, on_record: Callable[[], object]) -> None:
    faults = verify(corpus, lambda entry: on_record())
    if faults:
        first = faults[0]
        raise CorpusError(
            f"{corpus.name}: {first.record} at {first.start}:{first.stop}",
            expected="bytes as the registry describes them",
            found=f"{first.fault} ({len(faults)} faults in all)",
            remedy="`aunn-data verify` lists them; restore the corpus from a copy",
        )


def _regions(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (row["name"], row["record"], text)
        for row in rows
        for text in ([row["region"]] if isinstance(row["region"], str) else row["region"])
    ]


def _holdout(corpus: Corpus, row: tuple[str, str, str]) -> Holdout:
    name, record, text = row
    region = corpus.entries.named(record).geometry.parse_region(text, f"holdout {name!r} of {record}")
    return Holdout(name, record, region)
