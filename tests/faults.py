"""Runs a command and makes the disk fail it: killed, torn, refused, written short or cut from power at its n-th call.

The command and all its threads and children run under ptrace; a seccomp filter stops only the system calls that change
files, so the rest runs at full speed. Calls that touch the given folders are counted from 1, those of the others pass.
The tracer is a process of its own (this file as a script): it waits for any child, which would take other people's
children away within a test process, and it forks, which a process with threads must not.

Blind to writes through shared mappings; a kernel ring (io_uring) is refused as on a kernel that has none.
"""

import ctypes
import errno
import json
import os
import platform
import random
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.power import Disk

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Fault:
    """What happens at counted call ``at``; ``seed`` decides how much of a write is done and what a cut leaves.

    kind    kill    everything is killed just before the call
            torn    the first write from there on is done in part, then everything is killed
            fail    the call does not happen and gives ``error``; if ``lasting``, so do the later ones of its sort
            short   the first write from there on is done in part, and says so
            power   everything is killed just before the call, and what was not flushed to the disk is lost
            names   the same, but names survive without being flushed: what a file system that journals only names does
            again   everything is killed just before the call, the command run again unharmed, then the power is cut
    """

    kind: str
    at: int
    seed: int = 0
    error: int = errno.EIO
    lasting: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of the command. ``log`` holds (kind, path) of each counted call; ``struck``: the fault happened."""

    returncode: int
    struck: bool
    log: list[tuple[str, str]]
    stdout: str
    stderr: str

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return len(self.log)


def run(
    command: Sequence[str | Path],
    folders: Sequence[Path],
    fault: Fault | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> Outcome:
    """Runs ``command`` under a fault, or unharmed, counting its calls below ``folders`` (which exist)."""
    task = {
        "command": [str(word) for word in command],
        "folders": [os.path.realpath(folder) for folder in folders],
        "fault": asdict(fault) if fault else None,
        "cwd": str(cwd or Path.cwd()),
        "env": dict(os.environ if env is None else env),
    }
    tracer = subprocess.run(
        [sys.executable, "-m", "tests.faults"],
        input=json.dumps(task),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        timeout=timeout,
        check=True,
    )
    told = json.loads(tracer.stdout)
    return Outcome(**{**told, "log": [tuple(call) for call in told["log"]]})


@cache
def why_not() -> str | None:
    """Why faults cannot be made on this machine; None if they can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"faults are made on Linux x86_64 only, this is {sys.platform} {platform.machine()}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            seen = run([sys.executable, "-c", "open('made', 'w')"], [Path(folder)], cwd=Path(folder)).log
        except subprocess.CalledProcessError:
            return "this machine does not let a process trace its own child"
        return None if [kind for kind, _ in seen] == ["open"] else f"the tracer saw {seen} of one opened file"


# ---- system calls of x86_64 ------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """Which of its arguments (0…5) are what. ``paths``: (descriptor of a folder, path)."""

    kind: str
    descriptor: int | None = None
    paths: tuple[tuple[int | None, int], ...] = ()
    length: int | None = None
    flags: int | None = None


CALLS = {
    1: Call("write", 0, length=2),
    18: Call("write", 0, length=2),  # pwrite64
    20: Call("writev", 0),
    296: Call("writev", 0),  # pwritev
    328: Call("writev", 0),  # pwritev2
    40: Call("copy", 0, length=3),  # sendfile
    326: Call("copy", 2, length=4),  # copy_file_range
    2: Call("open", paths=((None, 0),), flags=1),
    85: Call("open", paths=((None, 0),)),  # creat
    257: Call("open", paths=((0, 1),), flags=2),  # openat
    437: Call("open", paths=((0, 1),)),  # openat2: its flags lie in memory, where the filter cannot look
    82: Call("rename", paths=((None, 0), (None, 1))),
    264: Call("rename", paths=((0, 1), (2, 3))),
    316: Call("rename", paths=((0, 1), (2, 3))),
    86: Call("link", paths=((None, 0), (None, 1))),
    265: Call("link", paths=((0, 1), (2, 3))),
    88: Call("symlink", paths=((None, 1),)),
    266: Call("symlink", paths=((1, 2),)),
    87: Call("unlink", paths=((None, 0),)),
    263: Call("unlink", paths=((0, 1),)),
    84: Call("rmdir", paths=((None, 0),)),
    83: Call("mkdir", paths=((None, 0),)),
    258: Call("mkdir", paths=((0, 1),)),
    76: Call("truncate", paths=((None, 0),)),
    77: Call("truncate", 0),
    285: Call("allocate", 0),
    74: Call("fsync", 0),
    75: Call("fsync", 0),  # fdatasync
    277: Call("flush", 0),  # sync_file_range: promises nothing about the disk
    162: Call("sync"),
    306: Call("sync", 0),  # syncfs
}
KILLS = {"kill", "power", "names", "again"}  # kinds of fault that end the command at once …
CUTS = {"power", "names", "again"}  # … and that lose what is not durable
TAKES_SPACE = {"write", "writev", "copy", "open", "rename", "link", "symlink", "mkdir", "truncate", "allocate"}
WRITES = {"write", "writev", "copy"}
IO_URING_SETUP = 425
MAKING = os.O_CREAT | os.O_TRUNC | 0x400000  # … or O_TMPFILE: an open with none of these changes nothing
AT_FDCWD = -100

# Registers within user_regs_struct, in words; ARGUMENTS are those of a system call.
WORDS, RAX, RDX, RSI, ORIG_RAX = 27, 10, 12, 13, 15
ARGUMENTS = (14, 13, 12, 7, 9, 8)
Registers = ctypes.c_ulong * WORDS


def seccomp_filter() -> bytes:
    """The BPF program that hands the calls of CALLS to the tracer and lets all others pass."""
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    trace, allow, refuse = 0x7FF00000, 0x7FFF0000, 0x00050000 | errno.ENOSYS

    def line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = line(load, 4) + line(equal, 0xC000003E, 1, 0) + line(give, allow)  # another architecture's numbers
    program += line(load, 0) + line(equal, IO_URING_SETUP, 0, 1) + line(give, refuse)
    for number, call in CALLS.items():
        if call.flags is None:
            program += line(equal, number, 0, 1) + line(give, trace)
        else:
            program += line(equal, number, 0, 4) + line(load, 16 + 8 * call.flags)
            program += line(any_bit, MAKING, 0, 1) + line(give, trace) + line(give, allow)
    return program + line(give, allow)


# ---- the tracer ------------------------------------------------------------------------------------------------------

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long
CONT, GETREGS, SETREGS, SYSCALL, SEIZE, LISTEN = 7, 12, 13, 24, 0x4206, 0x4208
OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x100000  # sysgood fork vfork clone exec seccomp exitkill
EVENT_SECCOMP, EVENT_STOP = 7, 128
SYSCALL_EXIT = signal.SIGTRAP | 0x80
WALL = 0x40000000
JOB_STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def ptrace(request: int, task: int, data: Any = None) -> None:
    """ptrace(2). ProcessLookupError if the task was killed meanwhile."""
    if LIBC.ptrace(request, task, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"ptrace {request:#x} of {task}")


class Tracer:
    """One traced command: its tasks, the calls counted so far, the fault to come."""

    def __init__(self, folders: list[str], fault: Fault | None):
        self.folders, self.fault = folders, fault
        self.dice = random.Random(fault.seed if fault else 0)
        self.disk = Disk(folders) if fault and fault.kind in CUTS else None
        self.log: list[tuple[str, str]] = []
        self.struck = self.killed = False
        self.tasks: set[int] = set()
        self.inside: dict[int, Any] = {}  # task within a shortened write -> its registers before

    def follow(self, child: int) -> int:
        """Traces a seized child to its end and that of all that it started; returns its wait status."""
        self.tasks, self.killed, ended = {child}, False, 0
        while self.tasks:
            task, status = os.waitpid(-1, WALL)
            self.tasks.add(task)
            if not os.WIFSTOPPED(status):
                self.tasks.discard(task)
                ended = status if task == child else ended
                continue
            try:
                if self.killed:
                    os.kill(task, signal.SIGKILL)  # started while the others were being killed
                else:
                    self._stopped(task, os.WSTOPSIG(status), status >> 16)
            except ProcessLookupError:
                continue
        return ended

    def cut_power(self) -> None:
        """Leaves what is durable, if the fault is of that sort and has struck."""
        if self.disk and self.fault and self.struck:
            if self.fault.kind == "names":
                self.disk.keep_names()
            self.disk.cut(self.dice)

    def _stopped(self, task: int, stop: int, event: int) -> None:
        if event == EVENT_SECCOMP:
            self._called(task)
        elif stop == SYSCALL_EXIT:
            self._written_in_part(task)
        elif event == EVENT_STOP:
            ptrace(LISTEN if stop in JOB_STOPS else CONT, task)
        else:
            ptrace(CONT, task, None if event else stop)

    def _called(self, task: int) -> None:
        registers = Registers()
        ptrace(GETREGS, task, registers)
        call = CALLS[registers[ORIG_RAX]]
        arguments = [registers[index] for index in ARGUMENTS]
        path = self._counted(task, call, arguments)
        if path is None:
            ptrace(CONT, task)
            return
        self.log.append((call.kind, path))
        due = self.fault is not None and len(self.log) >= self.fault.at
        if not (due and self._strikes(task, call, registers, self.fault)):
            self._let_pass(task, call, arguments)

    def _strikes(self, task: int, call: Call, registers: Any, fault: Fault) -> bool:
        """Does to a call what the fault does; False if it spares this one."""
        if fault.kind == "fail" and self._refused(call, fault):
            self.struck = True
            registers[ORIG_RAX], registers[RAX] = 2**64 - 1, 2**64 - fault.error
            ptrace(SETREGS, task, registers)
            ptrace(CONT, task)
            return True
        if self.struck:
            return False
        if fault.kind in KILLS:
            self._kill()
            return True
        return fault.kind in ("torn", "short") and call.kind in WRITES and self._shortened(task, call, registers)

    def _refused(self, call: Call, fault: Fault) -> bool:
        """Is this call, the first from the fault's on, the one to fail, or one of its sort?"""
        if not self.struck:
            self.sort = TAKES_SPACE if fault.error == errno.ENOSPC and call.kind in TAKES_SPACE else {call.kind}
        return not self.struck or (fault.lasting and call.kind in self.sort)

    def _shortened(self, task: int, call: Call, registers: Any) -> bool:
        """Lets a part of a write happen (of a vector, of its first piece); False for one of a single byte."""
        changed = Registers(*registers)
        if call.kind == "writev":
            base, length = struct.unpack("QQ", _memory(task, registers[RSI], 16))
            changed[ORIG_RAX] = 1 if registers[ORIG_RAX] == 20 else 18  # write or pwrite64 of the first piece
            at, changed[RSI] = RDX, base
        else:
            at = ARGUMENTS[call.length or 0]
            length = registers[at]
        if length < 2:
            return False
        self.struck = True
        changed[at] = self.dice.randrange(1, length)
        self.inside[task] = registers
        ptrace(SETREGS, task, changed)
        ptrace(SYSCALL, task)
        return True

    def _written_in_part(self, task: int) -> None:
        """A shortened write is done: the caller gets its registers back as they were, but for the count."""
        assert self.fault is not None
        if self.fault.kind == "torn":
            self._kill()
            return
        done = Registers()
        ptrace(GETREGS, task, done)
        before = self.inside.pop(task)
        for index in (*ARGUMENTS, ORIG_RAX):
            done[index] = before[index]
        ptrace(SETREGS, task, done)
        ptrace(CONT, task)

    def _let_pass(self, task: int, call: Call, arguments: list[int]) -> None:
        if self.disk and call.kind == "fsync":
            self.disk.flush(f"/proc/{task}/fd/{arguments[0]}")
        elif self.disk and call.kind == "sync":
            self.disk.flush_all()
        ptrace(CONT, task)

    def _kill(self) -> None:
        self.struck = self.killed = True
        for task in self.tasks:
            try:
                os.kill(task, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _counted(self, task: int, call: Call, arguments: list[int]) -> str | None:
        """The path a call touches (of a rename or link, the new one) if one of its paths lies below the folders."""
        if call.kind == "sync":
            return self.folders[0]
        if call.descriptor is not None:
            found = [_linked(f"/proc/{task}/fd/{_int32(arguments[call.descriptor])}")]
        else:
            found = [
                _path(task, None if at is None else _int32(arguments[at]), arguments[path]) for at, path in call.paths
            ]
        inside = [path for path in found if any(path == top or path.startswith(top + "/") for top in self.folders)]
        return found[-1] if inside else None


def _path(task: int, folder: int | None, address: int) -> str:
    """The path that a call was given at an address in the task's memory, made absolute, its last part not followed."""
    data = b""
    while b"\0" not in data:
        data += _memory(task, address + len(data), 4096 - (address + len(data)) % 4096)
    here = f"/proc/{task}/cwd" if folder in (None, AT_FDCWD) else f"/proc/{task}/fd/{folder}"
    path = os.path.join(_linked(here), os.fsdecode(data[: data.index(0)]))
    head, tail = os.path.split(path.rstrip("/"))
    return os.path.normpath(os.path.join(os.path.realpath(head), tail))


def _memory(task: int, address: int, length: int) -> bytes:
    with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(length)


def _linked(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _int32(argument: int) -> int:
    return ctypes.c_int32(argument).value


# ---- the traced child ------------------------------------------------------------------------------------------------


def _become(task: dict[str, Any], seized: int, output: Sequence[int]) -> None:
    """The child's side of the fork: waits until it is traced, puts the filter on, turns into the command."""
    os.read(seized, 1)
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, descriptor in enumerate(output, start=1):
        os.dup2(descriptor, number)
    os.chdir(task["cwd"])
    program = seccomp_filter()
    lines = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(lines))
    set_no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    if LIBC.prctl(set_no_new_privileges, 1, 0, 0, 0) or LIBC.prctl(set_seccomp, mode_filter, argument, 0, 0):
        os._exit(125)
    os.execvpe(task["command"][0], task["command"], task["env"])


def _run(task: dict[str, Any], tracer: Tracer, output: Sequence[int]) -> int:
    """One run of the command under the tracer; its wait status."""
    seized, seize = os.pipe()
    child = os.fork()
    if not child:
        try:
            _become(task, seized, output)
        finally:
            os._exit(126)
    ptrace(SEIZE, child, OPTIONS)
    os.write(seize, b"!")
    return tracer.follow(child)


def trace(task: dict[str, Any]) -> dict[str, Any]:
    """Runs the command of a task as its tracer; an Outcome's fields."""
    fault = Fault(**task["fault"]) if task["fault"] else None
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        tracer = Tracer(task["folders"], fault)
        status = _run(task, tracer, [stdout.fileno(), stderr.fileno()])
        if fault and fault.kind == "again" and tracer.struck:
            status = _run(task, tracer, [stdout.fileno(), stderr.fileno()])
        tracer.cut_power()
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return {
        "returncode": os.waitstatus_to_exitcode(status),
        "struck": tracer.struck,
        "log": tracer.log,
        "stdout": said[0],
        "stderr": said[1],
    }


if __name__ == "__main__":
    json.dump(trace(json.load(sys.stdin)), sys.stdout)
