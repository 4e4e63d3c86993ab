"""aunn-model continue."""

import json
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from aunn_model.continuation import Choice
from pipelines.capacity import trained_spans
from pipelines.cli.common import bar, output_options, print_json
from pipelines.cli.model_evaluate import run_corpus_option, with_option
from pipelines.continuation import RATE, Asked, Lengths, asked, feeding, go_on, seen
from pipelines.continued import written
from pipelines.snapshots import opened


@click.command("continue")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--after", multiple=True, metavar="RECORD", help="Go on after this record; may be given again.")
@click.option("--at", multiple=True, type=click.IntRange(min=0), metavar="ADDRESS", help="Go on from here, below 2^63.")
@click.option("--bytes", "count", type=click.IntRange(min=1), default=256, show_default=True, help="Of a text.")
@click.option(
    "--next", "blocks", type=click.IntRange(min=1), default=1, show_default=True, help="Further images or scans."
)
@click.option("--plies", type=click.IntRange(min=1), help="Of a game [default: as many as its payload has room for].")
@click.option("--open-loop/--feed-back", default=True, help="All at once [default], or each byte learned at once.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, help="0: the likeliest byte [default].")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Draw from the K likeliest; 0: all [default].")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Of each place.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@click.option("--legal", is_flag=True, help="Games go on by the legal moves whose boards are likeliest.")
@click.option(
    "--optimizer", type=click.Choice(["sgd", "adamw", "muon"]), default="sgd", show_default=True, help="Of --feed-back."
)
@click.option("--lr", type=click.FloatRange(min=0), default=RATE, show_default=True, help="Rate of --feed-back.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("continuation"), show_default=True)
@with_option
@run_corpus_option
@output_options
def go_on_from(
    run: Path,
    after: tuple[str, ...],
    at: tuple[int, ...],
    count: int,
    blocks: int,
    plies: int | None,
    open_loop: bool,
    temperature: float,
    top_k: int,
    samples: int,
    seed: int,
    legal: bool,
    optimizer: str,
    lr: float,
    out: Path,
    with_: tuple[str, ...],
    corpus: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what comes next: after the corpus, after a record, or at any address below 2^63.

    Text is printed. Images, scans and games are written in their own format, with a picture and a continuations.json; a
    game's moves are printed too, as far as chess allows what was predicted. Without --after and --at it goes on after
    the corpus' last record.

    \b
    Examples:
      aunn-model continue run --bytes 400
      aunn-model continue run --after text/sonnets.txt --temperature 0.8 --top-k 20 --samples 3 --feed-back
      aunn-model continue run --after scans/scroll_54keV.nii.gz --next 2
      aunn-model continue run --after chess/games.pgn#1 --legal --plies 12
      aunn-model continue run --at 9223372036854775000
    """
    if samples > 1 and not temperature:
        raise click.UsageError("--samples needs --temperature: the likeliest bytes are the same each time")
    known = opened(run, with_, corpus)
    places = asked(known.corpus, after, at, Lengths(count, blocks, plies), samples, known.end)
    if legal and not any(place.plies for place in places):
        raise click.UsageError("--legal needs a game kept as boards: --after RECORD")
    choice, settings = Choice(temperature, top_k, seed), feeding(known.run.settings, optimizer, lr)
    trained, found = trained_spans(known.corpus, known.run), []
    with bar(sum(len(place.addresses_N) for place in places), "byte", quiet or as_json, "continue") as progress:
        for place, continued in go_on(
            known.network, known.corpus, places, choice, None if open_loop else settings, legal, progress.update
        ):
            told = {"seen": seen(place, trained), **written(known.corpus, place, continued, out)}
            found.append(told)
            if told["seen"] and not quiet:
                _say(progress, _note(place, told["seen"]), err=True)
            if not as_json:
                _say(progress, _shown(place, told, len(places) > 1))
    drawn = {"temperature": temperature, "top_k": top_k, "seed": seed, "with": list(with_)}
    document = {"run": str(run), "mode": "open loop" if open_loop else "feed back", **drawn, "continuations": found}
    if any(told["files"] for told in found):
        said = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (out / "continuations.json").write_text(said, encoding="utf-8")
    if as_json:
        print_json(document)


globals()["continue"] = go_on_from  # the verb's name, by which it is found, is a keyword of Python


def _say(progress: "tqdm[Any]", text: str, err: bool = False) -> None:
    """A message beside the bar."""
    progress.clear()
    click.echo(text, err=err)
    progress.refresh()


def _note(place: Asked, share: float) -> str:
    known = "all" if share == 1 else f"{100 * share:.2g} %"
    what = f"what comes after {place.name}" if place.entry else place.name
    return f"note: {what}, {place.start}:{place.stop}: the run was trained on {known} of it, memory, not continuation"


def _shown(place: Asked, told: dict[str, Any], several: bool) -> str:
    sample = f", sample {place.sample + 1}" if place.sample else ""
    heading = [f"--- {'' if place.entry is None else 'after '}{place.name}{sample}"] if several else []
    text = [] if told["text"] is None else [told["text"]]
    return "\n".join([*heading, *text, *told["files"]])
