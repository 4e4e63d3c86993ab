"""The fault harness: every fault is seen to act on small scripts, in threads, in children and in a writer in Rust."""

import errno
import shutil
import signal
import sys

import pytest

from tests.faults import Fault, run, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

FIVE = "for n in range(5): open(f'{n}', 'w').close()"
# All that a power cut may take or leave, in a folder that holds old and other. The LAST call makes the folder end.
FLUSHING = """
import os
def made(name, flushed):
    with open(name, 'w') as file:
        file.write(name * 100)
        file.flush()
        if flushed:
            os.fsync(file.fileno())
os.mkdir('in')
made('kept', True)
made('in/lost', True)
made('bare', False)
os.fsync(os.open('.', os.O_RDONLY))
made('unnamed', True)
os.rename('old', 'new')
open('kept', 'a').write('more')
os.unlink('other')
os.mkdir('end')
"""
LAST = 18
# Makes what is not there yet, and forgets that what is there may not be on the disk.
RESUMING = """
import os
for name in ("first", "second"):
    if not os.path.exists(name):
        with open(name, "w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
os.fsync(os.open(".", os.O_RDONLY))
"""
FAMILY = """
import os, subprocess, sys, threading
thread = threading.Thread(target=os.mkdir, args=('thread',))
thread.start()
thread.join()
if not os.fork():
    os.mkdir('fork')
    os._exit(0)
os.wait()
subprocess.run([sys.executable, '-c', "import os; os.mkdir('child'); os.system('mkdir grandchild; exec sleep 60')"])
"""
RUST = """
import pyarrow, deltalake
table = pyarrow.table({'a': [1]})
for _ in range(2):
    deltalake.write_deltalake('table', table, mode='append')
"""


@pytest.fixture
def folder(tmp_path):
    """The folder whose calls are counted; the scripts run in it."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def script(folder, code, fault=None):
    return run([sys.executable, "-c", code], [folder], fault, cwd=folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_unharmed_run_is_as_it_would_be(folder, tmp_path):
    """Exit code and output are the command's own; calls below the folder are logged in order, others are not."""
    done = script(folder, f"{FIVE}\nopen('{tmp_path}/beside', 'w').write('x'); print(7); exit('no')")
    assert (done.returncode, done.struck, done.stdout, done.stderr) == (1, False, "7\n", "no\n")
    assert done.log == [("open", str(folder / str(n))) for n in range(5)]
    assert names(folder) == list("01234")


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_kill_leaves_the_calls_before_it(folder, at):
    """Killed just before call n: the effects of n - 1 calls are there."""
    done = script(folder, FIVE, Fault("kill", at))
    assert (done.returncode, done.struck, len(names(folder))) == (-signal.SIGKILL, True, at - 1)


def test_a_fault_past_the_end_does_not_strike(folder):
    """With fewer calls than n the command ends unharmed, and the outcome says that nothing struck."""
    done = script(folder, FIVE, Fault("kill", 6))
    assert (done.returncode, done.struck, done.calls) == (0, False, 5)


def test_a_torn_write_leaves_a_part(folder):
    """Some of the bytes are there, not all, and the process is dead; the seed says how many."""
    sizes = []
    for seed in (0, 1, 1):
        done = script(folder, "open('a', 'wb').write(b'x' * 1000)", Fault("torn", 1, seed))
        assert (done.returncode, done.struck) == (-signal.SIGKILL, True)
        sizes.append((folder / "a").stat().st_size)
    assert 0 < min(sizes) < max(sizes) < 1000
    assert sizes[1] == sizes[2]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_call_raises_and_does_nothing(folder, error):
    """The call raises OSError with the number asked for; the next one works again."""
    code = "import os\nfor n in 'abc':\n try: os.mkdir(n)\n except OSError as error: print(n, error.errno)"
    done = script(folder, code, Fault("fail", 2, error=error))
    assert (done.returncode, done.stdout, names(folder)) == (0, f"b {error}\n", ["a", "c"])


def test_a_full_disk_stays_full(folder):
    """Once a call found no space, all that take space find none; removing still works."""
    code = """
import os
os.mkdir('a')
for act in (os.mkdir, os.mkdir, lambda name: open(name, 'w'), lambda name: os.rename('a', name)):
    try:
        act('b')
    except OSError as error:
        print(error.errno)
os.rmdir('a')
"""
    done = script(folder, code, Fault("fail", 2, error=errno.ENOSPC, lasting=True))
    assert (done.returncode, done.stdout, names(folder)) == (0, f"{errno.ENOSPC}\n" * 4, [])


@pytest.mark.parametrize("call", ["os.write(f, data)", "os.writev(f, [data, data])", "os.pwrite(f, data, 0)"])
def test_a_short_write_says_how_short(folder, call):
    """The caller is told how many bytes were written, fewer than it gave, and those are there."""
    code = f"import os; data = b'x' * 1000; f = os.open('a', os.O_CREAT | os.O_WRONLY); print({call}); print({call})"
    done = script(folder, code, Fault("short", 1))
    first, second = map(int, done.stdout.split())
    assert (done.returncode, done.struck) == (0, True)
    assert 0 < first < 1000 <= second
    assert (folder / "a").read_bytes() == b"x" * (second if "pwrite" in call else first + second)


def test_a_power_cut_keeps_only_what_was_flushed(folder):
    """Strictly: a file needs its own fsync for its content and one of its folder for its name; the rest is lost."""
    (folder / "old").write_text("old")
    (folder / "other").write_text("other")
    done = script(folder, FLUSHING, Fault("power", LAST))
    assert (done.returncode, done.struck, done.log[-1]) == (-signal.SIGKILL, True, ("mkdir", str(folder / "end")))
    assert names(folder) == ["bare", "in", "kept", "old", "other"]
    assert (folder / "kept").read_text() == "kept" * 100
    assert (folder / "bare").read_text() != "bare" * 100
    assert names(folder / "in") == []


def test_a_journal_of_names_keeps_all_names(folder):
    """The other power cut: made, renamed and removed names are there, contents only where they were flushed."""
    (folder / "old").write_text("old")
    (folder / "other").write_text("other")
    assert script(folder, FLUSHING, Fault("names", LAST)).struck
    assert names(folder) == ["bare", "in", "kept", "new", "unnamed"]
    assert (folder / "new").read_text() == "old"
    assert (folder / "kept").read_text() == "kept" * 100
    assert (folder / "in" / "lost").read_text() == "in/lost" * 100


def test_a_second_run_makes_nothing_durable_that_it_does_not_flush(folder):
    """Killed before its first fsync, run again to its end, cut from power: only what was flushed is there."""
    done = script(folder, RESUMING, Fault("again", 3))
    assert (done.returncode, done.struck) == (0, True)
    assert [call for call, _ in done.log] == ["open", "write", "fsync", "open", "write", "fsync", "fsync"]
    assert (folder / "first").read_text() != "first"
    assert (folder / "second").read_text() == "second"


def test_threads_and_children_are_followed(folder):
    """A thread, a forked child, a spawned one and the shell below it all count; a kill ends the whole family."""
    done = script(folder, FAMILY, Fault("kill", 4))
    assert (done.returncode, done.struck) == (-signal.SIGKILL, True)
    assert names(folder) == ["child", "fork", "thread"]
    assert done.log[-1] == ("mkdir", str(folder / "grandchild"))


def test_a_rust_writer_is_caught(folder):
    """delta-rs writes through its own threads: its commit is logged, and refused on demand."""
    seen = script(folder, RUST)
    assert seen.returncode == 0
    log = folder / "table" / "_delta_log"
    commits = [n for n, (kind, path) in enumerate(seen.log, 1) if kind == "link" and path.startswith(str(log))]
    assert len(commits) == 2
    shutil.rmtree(folder / "table")
    done = script(folder, RUST, Fault("fail", commits[1]))
    assert done.struck
    assert done.returncode == 1
    assert len(list(log.glob("*.json"))) == 1
