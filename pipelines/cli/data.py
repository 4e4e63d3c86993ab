"""aunn-data: the corpus from the command line. One file a verb; this one only gathers them."""

import click

from pipelines.cli.common import Verbs

VERBS = {
    "sample": "Make a small mixed collection in real formats: two scans of one phantom, images, text, chess games",
    "ingest": "Put files and folders into the corpus, making it if there is none",
    "build-corpus": "Finish the corpus: ingest what CONFIG names, check every record, hold regions out, write its card",
    "info": "Say what is in the corpus: version, width, records and bytes by modality, holdouts",
    "ls": "List the records in order of address",
    "lookup": "Say what the byte at an address is: record, header or payload, element and digit plane",
    "read": "Write the bytes at addresses START:STOP to stdout, as they are; as a hex dump to a terminal",
    "export": "Write records (all by default) back as files of their own format, those of one source into one file",
    "verify": "Read every header and payload back and compare it with the registry's hashes; exit 3 where it differs",
    "holdout": "Keep regions of a record from every training under a NAME; without arguments list what is held out",
    "gc": "Remove what writers that died have left: shards and files that nobody lists or can still commit",
    "sql": "Ask the registry: SQL over the tables records, holdouts and reservations (DuckDB)",
}


@click.group(
    cls=Verbs, stem="pipelines.cli.data", verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="aunn")
def main() -> None:
    """One addressable list of bytes for text, images, scans and chess games.

    \b
    A first corpus:
      aunn-data sample things
      aunn-data ingest things
      aunn-data build-corpus
      aunn-data ls

    Exit codes: 0 done, 1 some inputs refused, 2 wrong usage or configuration, 3 corpus damaged,
    4 another writer was faster or the disk refused: try again.
    """


if __name__ == "__main__":
    main()
