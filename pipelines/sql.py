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
            return connection.execute(sql).to_arrow_table()
        except duckdb.Error as error:
            raise RequestError(
                "sql",
                expected="a statement over the tables " + ", ".join(TABLES),
                found=str(error),
                remedy="docs/corpus-format.md part 8 lists their columns",
            ) from error
