"""Parquet: one row a record, an equal table back."""

import datetime
import json
import math
import struct
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from aunn_data import header as headers
from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.options import Limits, Options
from pipelines.records import each
from pipelines.text import arrow_types, parquet
from tests.format_contract import Example, FormatContract, records_of, source_of

NAN = struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0]
SECOND = datetime.datetime(2024, 2, 29, 12, 30, 1, tzinfo=datetime.UTC)
COLUMNS = {
    "bool": ([True, None, False], pa.bool_()),
    "int": ([2**63 - 1, None, -(2**63)], pa.int64()),
    "uint": ([2**64 - 1, None, 0], pa.uint64()),
    "half": ([1.5, None, -0.0], pa.float16()),
    "single": ([0.1, math.inf, None], pa.float32()),
    "double": ([0.1, NAN, -math.inf], pa.float64()),
    "decimal": ([Decimal("12.50"), None, Decimal("-0.01")], pa.decimal128(12, 2)),
    "date": ([SECOND.date(), None, SECOND.date()], pa.date32()),
    "time": ([1, None, 2**40], pa.time64("ns")),
    "nanoseconds": ([1, None, -1], pa.timestamp("ns", "Europe/Berlin")),
    "duration": ([1, None, -1], pa.duration("us")),
    "string": (["ü🙂", None, ""], pa.large_string()),
    "bytes": ([b"\xff", None, b""], pa.binary()),
    "fixed": ([b"abc", None, b"\0\0\0"], pa.binary(3)),
    "list": ([[1, None], None, []], pa.list_(pa.timestamp("ms"))),
    "large": ([["a"], None, []], pa.large_list(pa.large_string())),
    "pair": ([[0.5, NAN], None, [1.0, 2.0]], pa.list_(pa.float64(), 2)),
    "struct": ([{"a": None, "b": [b"\1"]}, None, {"a": Decimal(7), "b": None}], None),
    "map": ([[("k", SECOND)], None, []], pa.map_(pa.string(), pa.timestamp("us", "UTC"))),
    "dictionary": (["a", None, "a"], pa.dictionary(pa.int32(), pa.string())),
    "nothing": ([None, None, None], pa.null()),
}
STRUCT = pa.struct([("a", pa.decimal256(40, 0)), pa.field("b", pa.list_(pa.binary()))])


def everything(text=("one", "zwei ü", "3")):
    """A table of all types, with metadata of its own and of a field."""
    arrays = [pa.array(values, t or STRUCT) for values, t in COLUMNS.values()]
    fields = [pa.field(name, array.type) for name, array in zip(COLUMNS, arrays, strict=True)]
    fields.append(pa.field("text", pa.string(), nullable=False, metadata={"of": "a field"}))
    return pa.table([*arrays, pa.array(text)], schema=pa.schema(fields, metadata={"of": "a table"}))


def table(name, columns, **options):
    return Example(name, parquet, lambda path: pq.write_table(columns, path, **options), len(columns))


EXAMPLES = [
    table("everything.parquet", everything()),
    table("groups.parquet", pa.table({"text": ["a", None, "", "d"], "n": [1.5, 2, None, 4]}), row_group_size=2),
    table("bytes.parquet", pa.table({"content": [b"\xff\0", b"b"], "text": [1, 2]})),
    Example("text/parquet/nulls.snappy.parquet", parquet, records=8),
    Example("text/parquet/nested_lists.snappy.parquet", parquet, records=3),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestParquet(FormatContract):
    """The contract over tables of all kinds."""


def made(tmp_path, columns, **options):
    pq.write_table(columns, tmp_path / "a.parquet", **options)
    return tmp_path / "a.parquet"


def there_and_back(path, records=None):
    """The table that is written of the records once their headers went through the corpus."""
    back = []
    for record in records or records_of(parquet, path):
        decoded = headers.decode(headers.encode(record.header, payload=0, next=0), "here")
        back.append(Record(decoded, np.array(record.elements)))
    return pq.read_table(parquet.write(back, path.with_name("back.parquet")))


def bits(found):
    """A table with floats as integers: NaNs are equal only to themselves bit for bit."""
    return found.set_column(
        found.schema.get_field_index("double"), "double", found["double"].combine_chunks().view(pa.int64())
    )


def test_an_equal_table_is_written(tmp_path):
    """All types, nulls, NaNs bit for bit, metadata of the table and its fields."""
    path = made(tmp_path, everything())
    back = there_and_back(path)
    given = pq.read_table(path)
    assert back.schema.equals(given.schema, check_metadata=True)
    assert bits(back).drop_columns("pair").equals(bits(given).drop_columns("pair"))
    flat = [one["pair"].combine_chunks().flatten().view(pa.int64()) for one in (back, given)]
    assert flat[0].equals(flat[1])


def test_some_rows_keep_their_types_without_the_first(tmp_path):
    """Every header names the types of its columns."""
    path = made(tmp_path, everything())
    given = pq.read_table(path)
    back = there_and_back(path, records_of(parquet, path)[2:])
    assert back.schema.equals(given.schema)
    assert back.drop_columns("double").equals(given.slice(2).drop_columns("double").combine_chunks())


def test_the_text_is_the_payload_and_the_rest_is_named_and_typed(tmp_path):
    """Columns in their order, the text's without its value."""
    record = records_of(parquet, made(tmp_path, pa.table({"id": [7], "text": ["ü"], "x": [0.1]})))[0]
    assert bytes(record.elements) == "ü".encode()
    assert record.header.metadata["text_column"] == "text"
    assert record.header.metadata["columns"] == [["id", "int64", 7], ["text", "string"], ["x", "double", 0.1]]


def test_a_row_without_a_text_goes_in_as_a_whole(tmp_path):
    """No such column, null or empty: its values are the payload, as JSON."""
    path = made(tmp_path, pa.table({"text": ["a", "", None], "n": [1, 2, 3]}))
    assert [bytes(r.elements) for r in records_of(parquet, path)][1:] == [b'{"text":"","n":2}', b'{"text":null,"n":3}']
    assert there_and_back(path).equals(pq.read_table(path))


@pytest.mark.parametrize(
    ("kind", "asked", "payload"),
    [
        (pa.dictionary(pa.int8(), pa.string()), None, b"t"),
        (pa.large_binary(), None, b"t"),
        (pa.string(), "other", b"o"),
        (pa.string(), "absent", b'{"text":"t","other":"o"}'),
    ],
)
def test_the_column_of_the_text(tmp_path, kind, asked, payload):
    """The one asked for, else the one that is called so, of strings, bytes or a dictionary of them."""
    path = made(tmp_path, pa.table({"text": pa.array(["t"]).cast(kind), "other": ["o"]}))
    [record] = each(parquet.read(replace(source_of(path), options=Options(text_column=asked))))
    assert bytes(record.elements) == payload


def test_two_columns_of_one_name(tmp_path):
    """None of them is the text; both come back."""
    path = made(tmp_path, pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]))
    assert bytes(records_of(parquet, path)[0].elements) == b'["a","b"]'
    written = parquet.write(records_of(parquet, path), tmp_path / "back.parquet")
    assert pq.ParquetFile(written).read().equals(pq.ParquetFile(path).read())


def test_strings_that_are_not_utf8_come_back(tmp_path):
    """Parquet promises UTF-8, files do not always keep it."""
    bad = pa.array([b"\xff", b"ok", None]).view(pa.string())
    nested = pa.ListArray.from_arrays([0, 1, 2, 3], bad)
    path = made(tmp_path, pa.table({"text": bad, "other": bad, "nested": nested}))
    back, given = there_and_back(path), pq.read_table(path)
    for name in ("text", "other"):
        assert back[name].cast(pa.binary()).equals(given[name].cast(pa.binary()))
    assert back["nested"].cast(pa.list_(pa.binary())).equals(given["nested"].cast(pa.list_(pa.binary())))


def test_extension_types_come_back(tmp_path):
    """In the header they are what they are stored as; the schema says what they mean."""
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16, None], pa.binary(16)))
    nested = pa.ListArray.from_arrays([0, 1, 2], ids)
    path = made(tmp_path, pa.table({"text": ["a", "b"], "id": ids, "ids": nested}))
    assert records_of(parquet, path)[0].header.metadata["columns"][1][1] == "fixed_size_binary[16]"
    assert there_and_back(path).equals(pq.read_table(path), check_metadata=True)


def test_only_the_first_row_has_the_schema(tmp_path):
    """Headers stay small, whatever a table says of itself."""
    columns = pa.table({"text": ["a", "b"]}).replace_schema_metadata({"pandas": "x" * 5000})
    first, second = (len(r.header.line()) for r in records_of(parquet, made(tmp_path, columns)))
    assert first > 5000
    assert second < 400


def test_types_come_back_from_their_json():
    """Nested, parametric, not null."""
    for field in everything().schema:
        said = json.loads(json.dumps(arrow_types.type_to_json(field.type)))
        assert arrow_types.type_from_json(said) == field.type


def test_more_rows_than_bytes_allow_are_refused(tmp_path):
    """Rows that take no space are counted all the same."""
    path = made(tmp_path, pa.table({"n": pa.nulls(1 << 20)}))
    source = replace(source_of(path), options=Options(limits=Limits(max_ratio=1)))
    assert next(parquet.read(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "FREE_BYTES", 1 << 10)
        with pytest.raises(InputError, match="1,048,576 rows"):
            next(parquet.read(source))


@pytest.mark.parametrize("columns", [{"text": pa.array([], pa.string())}, {}])
def test_a_table_without_rows_or_columns_is_refused(tmp_path, columns):
    """There is nothing to put in."""
    with pytest.raises(InputError, match="at least one row"):
        records_of(parquet, made(tmp_path, pa.table(columns)))


def test_real_rows_are_those_of_pyarrow(shared_data):
    """Values of real files equal pyarrow's own, and the table that is written is equal."""
    for name in ("dpk_lang_id_test_03", "dpk_ml_filter_1", "parquet/delta_byte_array", "dpk_curr_file_contents"):
        path = shared_data / "text" / f"{name}.parquet"
        for record, row in zip(records_of(parquet, path), pq.read_table(path).to_pylist(), strict=True):
            metadata, payload = record.header.metadata, bytes(record.elements)
            if "text_column" in metadata:
                values = {column[0]: column[2] for column in metadata["columns"] if len(column) == 3}
                assert {**values, metadata["text_column"]: payload.decode()} == row
            else:
                assert json.loads(payload) == row


def test_a_real_table_comes_back_equal(shared_data, tmp_path):
    """With metadata."""
    for name in ("dpk_ml_filter_1", "parquet/nested_lists.snappy"):
        path = shared_data / "text" / f"{name}.parquet"
        records = records_of(parquet, path)
        assert there_and_back(tmp_path / "a", records).equals(pq.read_table(path), check_metadata=True)
