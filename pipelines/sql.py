"""SQL over the registry: the three Delta tables as DuckDB sees them, the answer as Arrow."""

import duckdb
import pyarrow as pa

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError

TABLES = ("records", "holdouts", "reservations")


def query(corpus: Corpus, sql: str) -> pa.Table:
    """The rows of one SQL statement over ``records``, ``holdouts`` and ``reservations``, as an Arrow table.

    ``records`` are those of the corpus' version. Nothing but these tables can be read, and nothing written.
    RequestError if DuckDB refuses the statement.
    """
    with duckdb.connect(":memory:") as connection:
        for name in TABLES:
            version = corpus.version if name == "records" else None
            connection.register(name, corpus.registry.arrow(name, version))
        try:
            connection.execute("SET enable_external_access = false")
            found = connection.sql(sql)
            if found is None:
                raise _refused("none that gives rows")
            if len(set(found.columns)) < len(found.columns):
                raise _refused(f"two columns of one name among {', '.join(found.columns)}")
            return found.to_arrow_table()
        except duckdb.Error as error:
            raise _refused(str(error)) from error


def _refused(found: str) -> RequestError:
    return RequestError(
        "sql",
        expected="a query over the tables " + ", ".join(TABLES),
        found=found,
        remedy="docs/corpus-format.md part 8 lists their columns",
    )
