"""Processes in which aunn-data is loaded already, so that commands given to them begin in the same moment.

As a script this file is one of them: a line of JSON in, the command's arguments and environment; a line out, its end.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

ROOT = Path(__file__).parent.parent


class Ended(NamedTuple):
    """How a command ended; ``raised`` is what no command may raise."""

    code: int
    out: str
    err: str
    raised: str


class Racers:
    """So many processes. Each runs one command at a time."""

    def __init__(self, count: int):
        command = [sys.executable, "-m", "tests.racers"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(count)]

    def __enter__(self) -> "Racers":
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()

    def race(self, *commands: Sequence[object]) -> list[Ended]:
        """Starts the commands together, each in a process of its own, with this process' environment."""
        racing = list(zip(self.processes, commands, strict=False))
        assert len(racing) == len(commands)
        for process, command in racing:
            process.stdin.write(json.dumps([list(map(str, command)), dict(os.environ)]) + "\n")
        for process, _ in racing:
            process.stdin.flush()
        return [Ended(*json.loads(process.stdout.readline())) for process, _ in racing]


def main() -> None:
    """Runs the commands that come in."""
    from pipelines.cli.data import main as data

    print("ready", flush=True)
    for line in sys.stdin:
        args, variables = json.loads(line)
        os.environ.update(variables)
        done = CliRunner().invoke(data, args)
        raised = "" if isinstance(done.exception, SystemExit | None) else repr(done.exc_info)
        print(json.dumps([done.exit_code, done.stdout, done.stderr, raised]), flush=True)


if __name__ == "__main__":
    main()
