"""What a power cut leaves of a folder, in the strict terms of POSIX.

The content of a file is on the disk once fsync or fdatasync of that file was called, as it was then. A name (made,
renamed, removed) is on the disk once fsync of the folder that holds it was called. All else may be lost, and here is.
Synchronous descriptors (O_SYNC) are taken for ordinary ones.
"""

import os
import random
import resource
import shutil
from pathlib import Path

Inode = tuple[int, int]
Tree = dict[str, "Tree | tuple[int, bytes]"]  # name -> folder, or mode and content of a file


class Disk:
    """The shadow of some folders: what of them is durable. They are taken to be durable as they are at the start."""

    def __init__(self, folders: list[str]):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one descriptor a file, see _pin
        self.folders = folders
        self.pins: dict[Inode, int] = {}
        self.names: dict[Inode, dict[str, Inode]] = {}
        self.content: dict[Inode, bytes] = {}
        self.flush_all()

    def flush_all(self) -> None:
        """What sync and syncfs do."""
        for top in self.folders:
            for folder, _, files in os.walk(top):
                for path in (folder, *(os.path.join(folder, file) for file in files)):
                    self.flush(path)

    def flush(self, path: str) -> None:
        """What fsync of the file or folder at ``path`` does."""
        if os.path.isdir(path):
            self.names[self._pin(path)] = self._entries(path)
        elif os.path.isfile(path):
            self.content[self._pin(path)] = Path(path).read_bytes()

    def keep_names(self) -> None:
        """Lets every name survive as it is now, though not the contents: what a journal of names alone does."""
        for top in self.folders:
            for folder, _, _ in os.walk(top):
                self.names[self._pin(folder)] = self._entries(folder)

    def cut(self, dice: random.Random) -> None:
        """Leaves in the folders what is durable; a durable name whose content is not holds whatever the dice say."""
        trees = [self._tree(self._pin(top), dice) for top in self.folders]
        for top, tree in zip(self.folders, trees, strict=True):
            shutil.rmtree(top)
            _plant(Path(top), tree)

    def _entries(self, folder: str) -> dict[str, Inode]:
        found = {}
        for name in os.listdir(folder):
            try:
                found[name] = self._pin(os.path.join(folder, name))
            except FileNotFoundError:  # another thread is just removing it
                continue
        return found

    def _pin(self, path: str) -> Inode:
        """The inode at ``path``, held open: else its number would go to another file once it is removed."""
        descriptor = os.open(path, os.O_PATH)
        said = os.fstat(descriptor)
        inode = said.st_dev, said.st_ino
        if inode in self.pins:
            os.close(descriptor)
        else:
            self.pins[inode] = descriptor
        return inode

    def _tree(self, folder: Inode, dice: random.Random) -> Tree:
        tree: Tree = {}
        for name, inode in sorted(self.names.get(folder, {}).items()):
            if os.path.isdir(f"/proc/self/fd/{self.pins[inode]}"):
                tree[name] = self._tree(inode, dice)
            else:
                tree[name] = os.fstat(self.pins[inode]).st_mode, self._durable(inode, dice)
        return tree

    def _durable(self, file: Inode, dice: random.Random) -> bytes:
        if file in self.content:
            return self.content[file]
        written = Path(f"/proc/self/fd/{self.pins[file]}").read_bytes()
        kept = written[: dice.randrange(max(1, len(written)))]
        return dice.choice([b"", kept, kept + dice.randbytes(len(written) - len(kept))])


def _plant(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, below in tree.items():
        if isinstance(below, dict):
            _plant(folder / name, below)
        else:
            mode, content = below
            (folder / name).write_bytes(content)
            (folder / name).chmod(mode & 0o7777)
