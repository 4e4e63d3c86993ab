"""The corpus card: what a corpus holds, counted, for people (CORPUS.md) and for programs (corpus.json)."""

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.sampling import held_out


def census(corpus: Corpus) -> dict[str, Any]:
    """Counts, bytes and spans by modality, version, width, holdouts; JSON types only."""
    table = corpus.entries.table
    modalities = {}
    for modality in sorted(set(table["modality"].to_pylist())):
        rows = table.filter(pc.equal(table["modality"], modality))
        modalities[modality] = {
            "records": rows.num_rows,
            "payload_bytes": pc.sum(rows["payload_bytes"]).as_py(),
            "missing_bytes": pc.sum(rows["missing_bytes"]).as_py(),
            "start": pc.min(rows["header_start"]).as_py(),
            "stop": pc.max(rows["stop"]).as_py(),
            "formats": sorted(set(rows["format"].to_pylist())),
        }
    holdouts: dict[str, Any] = {}
    regions = corpus.holdouts()
    for name in dict.fromkeys(h.holdout for h in regions):
        mine = [h for h in regions if h.holdout == name]
        holdouts[name] = {
            "regions": len(mine),
            "records": len({h.record for h in mine}),
            "bytes": spans.size(held_out(corpus, name)),
        }
    return {
        "corpus": corpus.name,
        "version": corpus.version,
        "format_version": corpus.format_version,
        "address_bits": corpus.address_bits,
        "records": len(corpus.entries),
        "payload_bytes": sum(m["payload_bytes"] for m in modalities.values()),
        "addresses_used": max((m["stop"] for m in modalities.values()), default=0),
        "modalities": modalities,
        "holdouts": holdouts,
    }


def write_card(corpus: Corpus) -> dict[str, Any]:
    """Writes CORPUS.md and corpus.json into the corpus' folder; returns the counts."""
    counted = census(corpus)
    corpus.store.put("corpus.json", (json.dumps(counted, indent=2) + "\n").encode())
    corpus.store.put("CORPUS.md", _markdown(counted).encode())
    return counted


def _markdown(counted: dict[str, Any]) -> str:
    lines = [
        f"# Corpus `{Path(counted['corpus']).name}`, version {counted['version']}",
        "",
        f"{counted['records']:,} records, {counted['payload_bytes']:,} payload bytes in a list of "
        f"2^{counted['address_bits']} bytes; addresses below {counted['addresses_used']:,} are handed out.",
        "",
        "| modality | records | payload bytes | missing bytes | addresses | formats |",
        "|---|---:|---:|---:|---|---|",
    ]
    for name, m in counted["modalities"].items():
        formats = ", ".join(m["formats"])
        row = f"{m['records']:,} | {m['payload_bytes']:,} | {m['missing_bytes']:,} | {m['start']:,}:{m['stop']:,}"
        lines.append(f"| {name} | {row} | {formats} |")
    lines += [
        "",
        "Held out from every training:",
        "",
        "| holdout | regions | records | bytes |",
        "|---|---:|---:|---:|",
    ]
    for name, h in counted["holdouts"].items():
        lines.append(f"| {name} | {h['regions']:,} | {h['records']:,} | {h['bytes']:,} |")
    lines += [
        "",
        "What lies where: `aunn-data ls`, or the Delta table `registry/records`. The bytes: the Zarr array `bytes`.",
        "",
    ]
    return "\n".join(lines)
