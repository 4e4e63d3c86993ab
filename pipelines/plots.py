"""The curves of a report, as SVG that stands in the page itself."""

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = {"train": "#404040", "scan": "#0072b2", "image": "#d55e00", "text": "#009e73", "chess": "#cc79a7"}


def learning(lines: list[dict[str, Any]]) -> str:
    """Bits per byte in training and on the checks by modality, over steps; the checks' PSNR beside it."""
    looks = [line for line in lines if line.get("checks")]
    modalities = sorted({name for line in looks for name in line["checks"]})
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [line["step"] for line in lines]
    left.plot(steps, [line["bits_per_byte"] for line in lines], color=COLOURS["train"], label="trained on")
    for name in modalities:
        here = [line for line in looks if name in line["checks"]]
        at, found = [line["step"] for line in here], [line["checks"][name] for line in here]
        colour = COLOURS.get(name)
        left.plot(at, [f["bits_per_byte"] for f in found], color=colour, marker=".", label=f"left out: {name}")
        if "psnr_db" in found[0]:
            right.plot(at, [f["psnr_db"] for f in found], color=colour, marker=".", label=name)
    left.set(xlabel="step", ylabel="bits per byte", ylim=(0, None), title="Surprise")
    right.set(xlabel="step", ylabel="dB, of the coarsest digit", title="PSNR of the network alone on what is left out")
    left.legend(frameon=False)
    if right.lines:
        right.legend(frameon=False)
    else:
        right.axis("off")
    return _svg(figure)


def reliability(coverage: dict[str, float]) -> str:
    """How often intervals held what they were to hold, against how often they claimed to."""
    claimed = [float(level) for level in coverage]
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#a0a0a0", linestyle="--", label="as claimed")
    axis.plot(claimed, list(coverage.values()), color=COLOURS["scan"], marker=".", label="found")
    axis.set(xlabel="claimed", ylabel="found", xlim=(0, 1), ylim=(0, 1), aspect="equal", title="Truth within intervals")
    axis.legend(frameon=False)
    return _svg(figure)


def comparison(psnr: dict[str, float]) -> str:
    """PSNR of every method as a bar, the best on top."""
    ranked = sorted(psnr.items(), key=lambda item: item[1])
    figure = Figure(figsize=(6.2, 0.9 + 0.36 * len(ranked)), layout="constrained")
    axis = figure.subplots()
    ours = ("network with fills", "network alone")
    colours = [COLOURS["scan"] if name in ours else "#b0b0b0" for name, _ in ranked]
    bars = axis.barh([name for name, _ in ranked], [value for _, value in ranked], color=colours)
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set(xlabel="PSNR, dB", xlim=(min(0, *psnr.values()), 1.12 * max(*psnr.values(), 1)))
    axis.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """An svg element; ids follow from the content, so the same figure is the same text."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "aunn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
