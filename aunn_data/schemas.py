"""The columns of the registry's three tables."""

import pyarrow as pa

_ADDRESS = pa.field("", pa.int64(), nullable=False)
_TEXT = pa.field("", pa.string(), nullable=False)


def _schema(**columns: pa.Field | pa.DataType) -> pa.Schema:
    return pa.schema(
        [c.with_name(n) if isinstance(c, pa.Field) else pa.field(n, c, nullable=False) for n, c in columns.items()]
    )


_INDICES = pa.list_(pa.field("element", pa.int64(), nullable=False))

SCHEMAS = {
    "records": _schema(
        record=_TEXT,
        source=_TEXT,
        modality=_TEXT,
        format=_TEXT,
        header_start=_ADDRESS,
        header_bytes=_ADDRESS,
        payload_start=_ADDRESS,
        payload_stop=_ADDRESS,
        stop=_ADDRESS,
        axes=pa.list_(pa.field("element", pa.string(), nullable=False)),
        shape=_INDICES,
        dtype=_TEXT,
        layout=_TEXT,
        geometry=_TEXT,
        payload_bytes=_ADDRESS,
        missing_bytes=_ADDRESS,
        sha256=_TEXT,
        source_sha256=_TEXT,
    ),
    "reservations": _schema(batch=_TEXT, start=_ADDRESS, stop=_ADDRESS, created=pa.timestamp("us", tz="UTC")),
    "holdouts": _schema(holdout=_TEXT, record=_TEXT, region=_TEXT, starts=_INDICES, stops=_INDICES),
}

# Columns that say the same in many rows: kept as Arrow dictionaries in memory.
REPEATED = ("source", "modality", "format", "dtype", "layout", "geometry", "source_sha256")


def in_memory(name: str) -> pa.Schema:
    """A table's schema with Arrow dictionaries for the columns that repeat themselves."""
    dictionary = pa.dictionary(pa.int32(), pa.string())
    repeated = name == "records"
    return pa.schema([f.with_type(dictionary) if repeated and f.name in REPEATED else f for f in SCHEMAS[name]])
