"""aunn-data lookup."""

from typing import Any

import click

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from pipelines.cli.common import corpus_option, output_options, print_json


@click.command()
@click.argument("address", type=int)
@corpus_option
@output_options
def lookup(address: int, corpus: str, as_json: bool, quiet: bool) -> None:
    """Say what the byte at an address is: record, header or payload, element and digit plane.

    Padding and addresses that nobody has are "gap".

    \b
    Example:
      aunn-data lookup 1048576 --corpus corpus
    """
    found = locate(Corpus.open(corpus), address)
    if as_json:
        print_json(found)
        return
    if found["record"] is None:
        click.echo(f"{address}: gap, no record's")
        return
    place = ""
    if found["element"] is not None:
        place = " " + ",".join(f"{a}={i}" for a, i in zip(found["axes"], found["element"], strict=True))
        place += f" plane {found['plane']} = {found['byte']}"
    click.echo(f"{address}: {found['part']} of {found['record']}{place}")


def locate(corpus: Corpus, address: int) -> dict[str, Any]:
    """What lies at an address."""
    if not 0 <= address < corpus.size:
        raise RequestError(
            "lookup",
            expected=f"an address within 0:{corpus.size}",
            found=str(address),
            remedy="`aunn-data ls` lists what lies where",
        )
    entry = corpus.entries.at(address)
    byte = int(corpus.read(address, address + 1)[0])
    found: dict[str, Any] = {"address": address, "record": entry and entry.record, "part": "gap", "element": None}
    found |= {"plane": None, "axes": entry and list(entry.axes), "byte": byte}
    if entry and address < entry.header_start + entry.header_bytes:
        found["part"] = "header"
    elif entry and (place := entry.geometry.locate(address - entry.payload_start)):
        found |= {"part": "payload", "element": list(place[0]), "plane": place[1]}
    return found
