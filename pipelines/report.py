"""One self-contained HTML page about a run: how it learned, how well it fills holes, how far to believe it."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from aunn_data.corpus import Corpus
from aunn_model.training import parameters
from pipelines import plots, runs
from pipelines.card import census
from pipelines.figures import summary
from pipelines.metrics import read_log
from pipelines.picture import figure_of
from pipelines.reconstruct import Reconstruction, Reconstructor
from pipelines.runs import Run
from pipelines.targets import Target, holdout_targets

MOST_PICTURES = 6  # records of a holdout that are shown

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; padding-bottom: .2em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .25em .9em; border-bottom: 1px solid #e4e4e4 }
th { text-align: left; font-weight: 600 } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.ours td { font-weight: 600; background: #eef5fb } p.note { color: #666; max-width: 46em }
img, svg { max-width: 100%; height: auto } .row { display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start }
code { font-size: .92em } figure { margin: 1.2em 0 } details { margin: 1em 0 }
"""


def write(
    folder: Path,
    corpus: Corpus,
    run: Run,
    path: Path,
    holdouts: Sequence[str] = (),
    on_target: Callable[[int, int], object] = lambda done, of: None,
) -> Path:
    """Writes the page about the run in ``folder``; of ``holdouts`` or, by default, of all that the run left out."""
    state = runs.load(folder, corpus, run)
    names = list(holdouts) or list(dict.fromkeys(name for name, _, _ in run.holdouts))
    reconstructor = Reconstructor(state.best, corpus, run)
    targets = [(name, target) for name in names for target in holdout_targets(corpus, name)]
    sections, done = [], 0
    for name in names:
        mine: list[Target] = [target for of, target in targets if of == name]
        figures: list[dict[str, Any]] = []
        pictures: list[str] = []
        for target in mine:
            found = reconstructor(target, "overwrite")
            figures.append(found.figures)
            if len(pictures) < MOST_PICTURES:
                pictures.append(_picture(found))
            done += 1
            on_target(done, len(targets))
        sections.append(_holdout(name, summary(figures), pictures))
    lines = read_log(folder)
    body = [
        f"<h1>{escape(folder.resolve().name)}</h1>",
        f"<p class=note>A run of an absolute-unit neural network on the corpus <code>{escape(run.corpus)}</code>, "
        f"version {run.version}.</p>",
        _key_figures(run, lines, parameters(state.network)),
        "<h2>Learning</h2>",
        plots.learning(lines) if lines else "<p>The run has no log yet.</p>",
        "<p class=note>What is left out are the <em>checks</em>: known regions like the holes of the corpus, which the "
        "run was not trained on. On them it chose the checkpoint that this page shows.</p>",
        *(sections or ["<h2>Holdouts</h2><p>Nothing was held out of this run.</p>"]),
        _corpus(census(corpus)),
        _settings(run),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(folder.resolve().name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{"".join(body)}</html>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _key_figures(run: Run, lines: list[dict[str, Any]], weights: int) -> str:
    last: dict[str, Any] = lines[-1] if lines else {"step": 0, "seconds": 0.0, "bits_per_byte": None}
    speed = last["step"] * run.settings.batch / last["seconds"] if last["seconds"] else None
    rows = [
        ("steps", f"{last['step']:,} of {run.settings.steps:,}, batches of {run.settings.batch:,}"),
        ("training", f"{last['seconds']:,.0f} s" + (f", {speed:,.0f} addresses/s" if speed else "")),
        ("bits per byte, trained on", _number(last["bits_per_byte"], 3)),
        ("network", f"{weights:,} weights, {run.settings.trunk}, {run.settings.layers} × {run.settings.width}"),
        ("holdouts", ", ".join(dict.fromkeys(escape(name) for name, _, _ in run.holdouts)) or "none"),
    ]
    return _table((), [(name, value) for name, value in rows])


def _holdout(name: str, found: dict[str, Any], pictures: list[str]) -> str:
    peers = dict(found["peers"])
    alone = peers.pop("network", None)
    network = (found["byte_accuracy"], found["bits_per_byte"])
    rows: list[tuple[str, Any, Any, Any]] = [("network", found["psnr_db"], *network)]
    if alone:
        rows = [
            ("network with fills", found["psnr_db"], None, found["pooled_bits_per_byte"]),
            ("network alone", alone["psnr_db"], *network),
        ]
    ours = len(rows)
    rows += [(peer, p["psnr_db"], p["byte_accuracy"], None) for peer, p in peers.items()]
    cells = [(n, _number(p, 2), _number(a and 100 * a, 1), _number(b, 3)) for n, p, a, b in rows]
    psnr = {row[0]: row[1] for row in rows if row[1] is not None}
    parts = [
        f"<h2>Holdout “{escape(name)}”</h2><div class=row>",
        _table(("method", "PSNR dB", "% bytes right", "bits/byte"), cells, ours),
        plots.comparison(psnr) if len(psnr) > 1 else "",
        "</div>",
    ]
    if found["coverage"]:
        levels = [(f"{float(k):.0%}", f"{100 * found['coverage'][k]:.1f} %") for k in ("0.50", "0.90", "0.99")]
        calibrated = all(row.get("calibrated", True) for row in found["records"])
        said = "fitted to the checks" if calibrated else "the network's own, not calibrated: the run had no checks"
        parts += ["<h3>How far to believe it</h3><div class=row>", plots.reliability(found["coverage"])]
        parts += [f"<div>{_table(('interval', 'truth within'), levels)}<p class=note>Intervals are {said}.</p>"]
        weights = next((row["weights"] for row in found["records"] if row.get("weights")), None)
        if weights:
            shares = [(expert, f"{100 * share:.1f} %") for expert, share in weights.items()]
            parts += ["<p>Whom the checks made it trust:</p>", _table(("opinion", "mean weight"), shares)]
        parts += ["</div></div>"]
    return "".join([*parts, *pictures])


def _picture(found: Reconstruction) -> str:
    buffer = io.BytesIO()
    figure_of(found).savefig(buffer, format="png", dpi=95, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    name = escape(found.target.entry.record)
    return f'<figure><img alt="{name}: given, predicted, truth" src="data:image/png;base64,{data}"></figure>'


def _corpus(counted: dict[str, Any]) -> str:
    rows = [
        (name, f"{m['records']:,}", f"{m['payload_bytes']:,}", ", ".join(m["formats"]))
        for name, m in counted["modalities"].items()
    ]
    size = f"{counted['records']:,} records in a list of 2<sup>{counted['address_bits']}</sup> bytes."
    return f"<h2>Corpus</h2><p>{size}</p>" + _table(("modality", "records", "payload bytes", "formats"), rows)


def _settings(run: Run) -> str:
    rows = [(name, escape(str(value))) for name, value in asdict(run.settings).items()]
    return (
        f"<h2>Configuration</h2><details open><summary>run.toml</summary>{_table(('setting', 'value'), rows)}</details>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], ours: int = 0) -> str:
    """Cells are HTML. With a head all columns but the first are set to the right; the first ``ours`` rows stand out."""
    side = " class=n" if head else ""
    top = "".join(f"<th{side if k else ''}>{cell}</th>" for k, cell in enumerate(head))
    lines = [
        f"<tr{' class=ours' if number < ours else ''}>"
        + "".join(f"<td{side if k else ''}>{cell}</td>" for k, cell in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    ]
    return f"<table>{f'<tr>{top}</tr>' if head else ''}{''.join(lines)}</table>"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
