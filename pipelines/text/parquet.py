"""Apache Parquet: one record a row: https://parquet.apache.org/docs/file-format/

The payload is the text column's bytes (a column of strings or bytes, or a dictionary of them). ``columns`` has all
columns in their order: the text's as [name, type], the others as [name, type, value], types and values as
``arrow_types`` says. A row without a text that can be a payload (no such column, null, empty) goes in as a whole: its
payload is its values as a JSON object (an array, where two columns are called alike), and ``text_column`` is not in its
metadata. The first row also keeps the file's whole Arrow ``schema`` (base64 of Arrow's IPC message: what the types
above leave out, such as the metadata of the file and of its fields), so what is written has an equal table; encodings
and compression are pyarrow's own.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet as pq

from aunn_data.errors import InputError
from aunn_data.record import Record, Records
from pipelines.compressed import FREE_BYTES
from pipelines.source import Source
from pipelines.stored import refusing
from pipelines.text import arrow_types, rows

MODALITY = "text"
FORMATS = ("parquet",)

MAGIC = (b"PAR1", b"PARE")
BATCH_BYTES = 1 << 24  # of a row group are decoded at once …
MOST_BATCH_ROWS = 1 << 12  # … but no more rows than these
WRITTEN_ROWS = 1 << 16  # of a row group, or fewer of that many bytes
WRITTEN_BYTES = 1 << 26
MOST_FOOTER_BYTES = 1 << 28
REMEDY = "write it again with pyarrow or restore it"

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_json_lines = json.JSONEncoder(ensure_ascii=False, separators=("\n", ":"), allow_nan=False).encode


class _Table:
    """What the rows of a file have in common: the schema, its columns and which of them (or None) is the text."""

    def __init__(self, schema: pa.Schema, asked: str | None):
        self.schema, self.names = schema, schema.names
        self.types = [arrow_types.column_to_json(field) for field in schema]
        self.converts = [arrow_types.to_json(field.type) for field in schema]
        self.whole = {"columns": [list(told) for told in zip(self.names, self.types, strict=True)]}
        keys = [_json(name).replace("%", "%%") for name in self.names]
        distinct = len(set(keys)) == len(keys)
        self.form = f"{{{','.join(f'{key}:%s' for key in keys)}}}" if distinct else f"[{','.join(['%s'] * len(keys))}]"
        texts = [field.name for field in schema if arrow_types.is_text(field.type)]
        name = rows.text_column(asked, texts)
        self.text = self.names.index(name) if name is not None and self.names.count(name) == 1 else None


def sniff(head: bytes, path: Path) -> bool:
    """By content: the four bytes at its start; PARE is encrypted, which pyarrow says better than we."""
    return head.startswith(MAGIC)


def read(source: Source) -> Iterator[Records | InputError]:
    """The rows, named ``name#1``, ``name#2``, …; read by batches. Raises InputError where the file is damaged."""
    path, expected = source.local(), "a Parquet file that pyarrow reads"
    with refusing(source.label, expected, REMEDY):
        file = pq.ParquetFile(
            path,
            thrift_string_size_limit=MOST_FOOTER_BYTES,
            thrift_container_size_limit=1 << 22,
        )
        with file:
            _check(source, file)
            table, number = _Table(file.schema_arrow, source.options.text_column), 0
            for batch in _batches(file):
                payloads, metadata = _rows(batch, table)
                if number == 0:
                    metadata[0] = {**metadata[0], "schema": base64.b64encode(table.schema.serialize()).decode()}
                yield rows.records(source.name, number + 1, "parquet", payloads, metadata)
                number += batch.num_rows
            if number != file.metadata.num_rows:
                raise _damaged(source, f"{file.metadata.num_rows:,} rows", f"{number:,}")


def write(records: Sequence[Record], path: Path) -> Path:
    """A Parquet file with an equal table."""
    with refusing(path, "rows of one table", "export rows of one file together"):
        schema = _schema(records[0])
        converts = [arrow_types.nullable(arrow_types.from_json(field.type)) for field in schema]
        left = iter(records)
        with pq.ParquetWriter(path, schema) as writer:
            while group := _group(left, converts):
                columns = zip(zip(*group, strict=True), schema, strict=True)
                parts = [_array(list(values), field.type) for values, field in columns]
                writer.write_table(pa.Table.from_arrays(parts, schema=schema), row_group_size=len(group))
    return path


# ---- reading -------------------------------------------------------------------------------------------------------


def _damaged(source: Source, expected: str, found: str) -> InputError:
    return InputError(source.label, expected=expected, found=found, remedy=REMEDY)


def _check(source: Source, file: pq.ParquetFile) -> None:
    """InputError for a footer that says what cannot be, before anything is made for it.

    pyarrow looks at the columns of a row group while it reads, and raises; asked for them by ``column`` it ends the
    process where their statistics are damaged.
    """
    size, metadata = source.length(), file.metadata
    most = max(FREE_BYTES, int(size * source.options.limits.max_ratio))
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    if not metadata.num_rows or not metadata.num_columns:
        raise _damaged(source, "at least one row and column", f"{metadata.num_rows} × {metadata.num_columns}")
    if sum(group.num_rows for group in groups) != metadata.num_rows or min(group.num_rows for group in groups) < 0:
        raise _damaged(source, f"row groups of {metadata.num_rows:,} rows in all", "others")
    if any(group.num_columns != metadata.num_columns for group in groups):
        raise _damaged(source, f"row groups of {metadata.num_columns:,} columns", "others")
    # A row takes a header of some hundred bytes, whatever little it is here.
    if metadata.num_rows > most or sum(group.total_byte_size for group in groups) > most:
        raise _damaged(source, "at most --max-ratio bytes or rows from each byte", f"{metadata.num_rows:,} rows")


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Batches of few enough rows, row group by row group."""
    for k in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(k)
        each = max(1, group.total_byte_size // max(1, group.num_rows))
        size = min(MOST_BATCH_ROWS, max(1, BATCH_BYTES // each))
        yield from file.iter_batches(batch_size=size, row_groups=[k], use_threads=False)


def _rows(batch: pa.RecordBatch, table: _Table) -> tuple[Sequence[bytes], list[dict[str, Any]]]:
    """The rows' payloads, and what the header of each says."""
    lists = [
        column.cast(pa.large_binary()).to_pylist() if k == table.text else _values(column, convert)
        for k, (column, convert) in enumerate(zip(batch.columns, table.converts, strict=True))
    ]
    if table.text is None:
        whole = [(table.form % row).encode() for row in zip(*map(_literals, lists), strict=True)]
        return whole, [table.whole] * len(whole)
    found = [_row(row, table, table.text) for row in zip(*lists, strict=True)]
    return [data for data, _ in found], [metadata for _, metadata in found]


def _row(row: tuple[Any, ...], table: _Table, text: int) -> rows.Row:
    if row[text]:
        told = list(map(list, zip(table.names, table.types, row, strict=True)))
        told[text].pop()
        return row[text], {"columns": told, "text_column": table.names[text]}
    values = list(row)
    values[text] = None if row[text] is None else ""
    return (table.form % tuple(map(_json, values))).encode(), table.whole


def _values(column: pa.Array, convert: arrow_types.Convert | None) -> list[Any]:
    """A column's values as JSON."""
    plain = arrow_types.plain_type(column.type)
    try:
        cast = column if plain == column.type else column.cast(plain)
        found: list[Any] = cast.to_pylist()
        if arrow_types.is_string(column.type):
            return found
        if pa.types.is_floating(plain) and pc.all(pc.is_finite(cast), min_count=0).as_py():
            return found
    except UnicodeDecodeError:
        found = column.cast(arrow_types.plain_type(column.type, pa.large_binary())).to_pylist()
    return found if convert is None else list(map(arrow_types.nullable(convert), found))


def _literals(values: list[Any]) -> list[str]:
    """The values as JSON, each as a text: all at once, as what stands in JSON's texts has no line feed."""
    found = _json_lines(values)[1:-1].split("\n")
    return found if len(found) == len(values) else list(map(_json, values))  # lists of several


# ---- writing -------------------------------------------------------------------------------------------------------


def _schema(first: Record) -> pa.Schema:
    metadata = first.header.metadata
    if "schema" in metadata:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(metadata["schema"])))
    return pa.schema([arrow_types.column_from_json(*column[:2]) for column in metadata["columns"]])


def _group(records: Iterator[Record], converts: Sequence[arrow_types.Convert]) -> list[list[Any]]:
    """The next rows, as pyarrow takes them, for one row group."""
    found, size = [], 0
    for record in islice(records, WRITTEN_ROWS):
        found.append(_row_of(record, converts))
        size += record.header.geometry.payload_bytes
        if size >= WRITTEN_BYTES:
            break
    return found


def _row_of(record: Record, converts: Sequence[arrow_types.Convert]) -> list[Any]:
    data, metadata = np.asarray(record.elements, np.uint8).tobytes(), record.header.metadata
    if "text_column" in metadata:
        columns = zip(converts, metadata["columns"], strict=True)
        return [data if len(column) == 2 else convert(column[2]) for convert, column in columns]
    said = json.loads(data)
    values = said if isinstance(said, list) else [said[column[0]] for column in metadata["columns"]]
    return [convert(value) for convert, value in zip(converts, values, strict=True)]


def _array(values: list[Any], t: pa.DataType) -> pa.Array:
    """The column, of values that ``from_json`` made."""
    try:
        return pa.array(values, t)
    except pa.ArrowNotImplementedError:
        if pa.types.is_dictionary(t):
            return _array(values, t.value_type).dictionary_encode().cast(t)
        return pa.array(values, arrow_types.plain_type(t)).cast(t)  # an extension type, or others within others
    except pa.ArrowInvalid:  # bytes that are not valid UTF-8 in a column of strings
        return pa.array(values, arrow_types.plain_type(t, pa.large_binary())).cast(t, safe=False)
