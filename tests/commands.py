"""The command line as tests type it, in this process."""

import json

from click.testing import CliRunner


def run(group, *args):
    """(exit code, stdout, stderr) of a command."""
    done = CliRunner().invoke(group, list(map(str, args)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout, done.stderr


def run_json(group, *args):
    """What a command that must succeed prints with --json."""
    code, out, err = run(group, *args, "--json")
    assert code == 0, err
    return json.loads(out)
