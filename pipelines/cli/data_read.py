"""aunn-data read."""

import base64
import sys

import click

from aunn_data.corpus import Corpus
from pipelines.cli.common import corpus_option, output_options, parse_span, print_json

SLAB = 1 << 24


@click.command()
@click.argument("span", callback=lambda ctx, param, value: parse_span(value), metavar="START:STOP")
@corpus_option
@click.option("--hex", "as_hex", is_flag=True, help="A hex dump (what a terminal gets anyway).")
@click.option("--version", type=int, help="Of an older version of the corpus.")
@output_options
def read(span: tuple[int, int], corpus: str, as_hex: bool, version: int | None, as_json: bool, quiet: bool) -> None:
    """Write the bytes at addresses START:STOP to stdout, as they are; as a hex dump to a terminal.

    Bytes that nobody wrote are 0. With --json they are base64.

    \b
    Example:
      aunn-data read 0:512 --corpus corpus
    """
    opened, (start, stop) = Corpus.open(corpus, version), span
    if as_json:
        encoded = base64.b64encode(opened.read(start, stop).tobytes()).decode()
        print_json({"start": start, "stop": stop, "base64": encoded})
        return
    dump = as_hex or sys.stdout.isatty()
    for at in range(start, stop, SLAB):
        data = opened.read(at, min(stop, at + SLAB)).tobytes()
        if dump:
            click.echo(hexdump(data, at))
        else:
            sys.stdout.buffer.write(data)
    if start == stop:
        opened.read(start, stop)  # an empty span outside the corpus is refused as well


def hexdump(data: bytes, start: int) -> str:
    """Sixteen bytes a line: address, hex, what is printable."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{start + at:>12}  {row.hex(' '):<47}  {text}")
    return "\n".join(lines)
