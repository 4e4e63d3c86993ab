"""What every verb shares: options, exit codes, bars on stderr, one JSON document on stdout."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import click
from tqdm import tqdm

from aunn_data.errors import AunnError

F = TypeVar("F", bound=Callable[..., Any])

corpus_option = click.option(
    "--corpus",
    metavar="DIR|URL",
    default="corpus",
    envvar="AUNN_CORPUS",
    show_default=True,
    show_envvar=True,
    help="Folder of the corpus, or its URL in an object store (s3://bucket/corpus).",
)


def _remember_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta["json"] = value  # an error that ends the command is printed as JSON too
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_remember_json, help="Print one JSON document on stdout."
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress bars and no messages, only results and errors.")

INTERRUPTED = 130


def output_options(command: F) -> F:
    """--json and --quiet, which every verb has."""
    return json_option(quiet_option(command))


class Lazy(Mapping[str, click.Command]):
    """Commands by name, each imported from ``<stem>_<first word of its name>`` when it is asked for: none waits for the
    libraries of another."""

    def __init__(self, stem: str, helps: dict[str, str]):
        self.stem, self.helps = stem, helps

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.helps:
            raise KeyError(name)
        command: click.Command = getattr(import_module(f"{self.stem}_{name.split('-')[0]}"), name.replace("-", "_"))
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self.helps)

    def __len__(self) -> int:
        return len(self.helps)


class Verbs(click.Group):
    """A group whose verbs end with the exit code of the error they raise, and one line on stderr."""

    def __init__(self, *given: Any, stem: str, verbs: dict[str, str], **more: Any):
        super().__init__(*given, **more)
        self.verbs = verbs
        self.commands = Lazy(stem, verbs)  # type: ignore[assignment]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with what each is for, none of them imported."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self.verbs.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb."""
        try:
            return super().invoke(ctx)
        except AunnError as error:
            click.echo(f"error: {error}", err=True)
            if ctx.meta.get("json"):
                print_json({"error": str(error)})
            sys.exit(error.exit_code)
        except FloatingPointError as error:
            click.echo(f"error: {error}; the last checkpoint is good, a smaller muon_lr or adam_lr may help", err=True)
            sys.exit(2)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            click.echo(f"error: {error}; nothing committed is lost, the same command again goes on", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted: nothing committed is lost, the same command again goes on", err=True)
            sys.exit(INTERRUPTED)


def print_json(document: Any) -> None:
    """The one JSON document of a verb."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def bar(total: int | None, unit: str, quiet: bool, description: str = "") -> "tqdm[Any]":
    """A progress bar on stderr; silent when quiet, no animation when stderr is no terminal."""
    return tqdm(
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        desc=description,
        disable=True if quiet else None,
        leave=False,
        file=sys.stderr,
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under their columns' names; numbers to the right, text to the left."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, [name, *(row[k] for row in cells)])) for k, name in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join(line(row) for row in [list(columns), *cells])


def parse_span(text: str) -> tuple[int, int]:
    """``A:B`` -> (A, B). A usage error for anything else."""
    start, colon, stop = text.partition(":")
    if not colon or not start.isdecimal() or not stop.isdecimal() or int(start) > int(stop):
        raise click.BadParameter(f"expected START:STOP in decimal, START <= STOP; found {text!r}")
    return int(start), int(stop)


def size(count: float) -> str:
    """A count of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return ""
