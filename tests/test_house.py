"""The laws of the house, held by tests: who may import whom, what may be read, and that the docs match the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.cli.data import main as data
from pipelines.cli.model import main as model

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for folder in ("aunn_data", "aunn_model", "pipelines") for p in (ROOT / folder).rglob("*.py"))

FORBIDDEN = {
    "aunn_data": {"aunn_model", "pipelines", "torch", "click", "tqdm", "PIL", "nibabel", "chess", "matplotlib"},
    "aunn_model": {
        "aunn_data",
        "pipelines",
        "click",
        "tqdm",
        "zarr",
        "deltalake",
        "pyarrow",
        "PIL",
        "nibabel",
        "chess",
    },
    "pipelines": set(),
}


def imports(path):
    """Top-level names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    """aunn_data knows no torch, aunn_model no corpus; only pipelines/cli knows click, only pipelines/chess chess."""
    inside = path.relative_to(ROOT)
    forbidden = set(FORBIDDEN[inside.parts[0]])
    if inside.parts[:2] != ("pipelines", "cli"):
        forbidden |= {"click", "tqdm"}
    if inside.parts[:2] != ("pipelines", "chess"):
        forbidden |= {"chess"}
    forbidden |= {"pickle", "dill", "joblib", "shelve"}
    assert not {name.split(".")[0] for name in imports(path)} & forbidden


def test_nobody_waits_for_what_is_not_used():
    """--help loads neither arrays nor torch; ls, lookup and info load no library of the readers, nor scipy or torch."""
    libraries = {"torch", "scipy", "chess", "matplotlib", "nibabel"} | {
        "pydicom",
        "h5py",
        "tifffile",
        "imagecodecs",
        "PIL",
    }
    for modules, unused in (
        ("pipelines.cli.data, pipelines.cli.model", {*libraries, "numpy", "zarr", "pyarrow", "deltalake"}),
        ("pipelines.cli.data_ls, pipelines.cli.data_lookup, pipelines.cli.data_info", {*libraries, "duckdb"}),
    ):
        code = f"import sys, {modules}; print(sorted({unused} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_nothing_reads_pickle():
    """No np.load without allow_pickle=False, no torch.load."""
    for path in SOURCES:
        source = path.read_text()
        assert "torch.load" not in source
        assert "allow_pickle=True" not in source


def test_the_readme_gives_every_file_a_line():
    """The README's tree names every module of the packages with what it is for, and no file that is not there."""
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    named, folder = set(), ""
    for line in tree.splitlines():
        if match := re.match(r"(\S+)/\s", line):
            folder = match[1]
        elif match := re.match(r"  (\S+\.py)\s+\S", line):
            named.add(f"{folder}/{match[1]}")
    there = {p.relative_to(ROOT).as_posix() for p in SOURCES if p.name != "__init__.py"}
    assert named == there


@pytest.mark.parametrize(("program", "group"), [("aunn-data", data), ("aunn-model", model)])
def test_every_verb_has_help_with_an_example_and_a_place_in_the_readme(program, group):
    """--help of every verb shows a command line that begins with its own name, the group's its first sentence; the
    README mentions it."""
    readme = (ROOT / "README.md").read_text()
    for name, command in group.commands.items():
        shown = CliRunner().invoke(group, [name, "--help"]).output
        assert re.search(rf"^\s+{program} {name}\b", shown, re.M), name
        assert f"{program} {name}" in readme, name
        assert command.get_short_help_str(200) == f"{group.verbs[name]}."
        assert {"--json", "--quiet"} <= {o for p in command.params if isinstance(p, click.Option) for o in p.opts}, name
