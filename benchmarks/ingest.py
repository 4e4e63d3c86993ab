"""Row a: one big volume goes in, durable; and what the disk itself could have done."""

from dataclasses import replace
from pathlib import Path

from aunn_data.corpus import Corpus
from benchmarks.data import SIDE, made
from benchmarks.measure import PEERS, Contender, Figures, Row, answer, child, compare, stored, timed, warm
from pipelines.ingest import ingest

SLICE = SIDE * SIDE
MOST_MEMORY = 1 << 30


def rows(work: Path, gib: float, rounds: int) -> list[Row]:
    """All that writes the volume, and the limits: the disk, the memory."""
    source = made("volume", work, gib)
    warm(source)

    def peer(name: str, *more: int) -> Contender:
        return lambda out: child("peers", name, source, out, *more, python=PEERS)

    def of_ours(name: str) -> Contender:
        return lambda out: child("peers", name, out.parent / "ours", out, python=PEERS)

    figures, found = compare(
        f"ingest a {gib:g} GiB volume",
        work,
        rounds,
        lambda out: child("ingest", "ours", source, out),
        {
            "tensorstore": peer("tensorstore"),
            "zarr-python": peer("zarr_python"),
            "litdata": peer("litdata_samples", SLICE),
            "mds": peer("mds_samples", SLICE),
            "sha256sum": lambda out: child("peers", "sha256sum", source, python=PEERS),
            "cp of our shards": of_ours("copy"),
            "disk": of_ours("disk"),
        },
        "a",
    )
    if seconds := found[-1].theirs:
        found[-1] = replace(found[-1], peer=f"disk, in order, {figures['stored'] / seconds / 1e6:,.0f} MB/s")
    found.append(Row("… its peak memory", "limit", figures["peak_bytes"], MOST_MEMORY, "a memory", unit="B"))
    return found


def ours(source: str, out: str) -> Figures:
    """The whole of ``ingest``: recognise, hash, probe, place, write, commit."""
    with timed() as timer:
        corpus = Corpus.create(Path(out))
        report = ingest([Path(source)], corpus)
    if len(report.ingested) != 1:
        raise SystemExit(f"not ingested: {report.refused}")
    return {"seconds": timer.seconds, "stored": stored(Path(out))}


if __name__ == "__main__":
    answer(ours)
