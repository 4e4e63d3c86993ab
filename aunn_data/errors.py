"""Everything that can go wrong, branched by what the catcher would do.

AunnError
├── InputError      (ValueError)    this input cannot go in; report it, take the next one       exit 1
├── RequestError    (ValueError)    what was asked for makes no sense here; ask differently     exit 2
├── CorpusError     (RuntimeError)  the corpus, or a file of a run, is damaged                  exit 3
├── ConflictError   (RuntimeError)  somebody else was faster; the same command again will do    exit 4
└── StoreError      (RuntimeError)  the disk or object store refused; mend it, then the same    exit 4
"""


class AunnError(Exception):
    """One line that says where, what was expected, what was found and what to do."""

    exit_code = 1

    def __init__(self, where: object, *, expected: str, found: str, remedy: str):
        self.where, self.expected, self.found, self.remedy = str(where), expected, found, remedy
        super().__init__(" ".join(f"{where}: expected {expected}; found {found}; {remedy}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders; the default would call ``__init__`` with the message alone."""
        return _rebuild, (type(self), self.where, self.expected, self.found, self.remedy)


def _rebuild(kind: type[AunnError], where: str, expected: str, found: str, remedy: str) -> AunnError:
    return kind(where, expected=expected, found=found, remedy=remedy)


class InputError(AunnError, ValueError):
    """This input cannot go in. The good ones beside it can."""

    exit_code = 1


class RequestError(AunnError, ValueError):
    """A wrong option, configuration key, name, region or address."""

    exit_code = 2


class CorpusError(AunnError, RuntimeError):
    """A corpus (or a run) that is damaged, or is not one."""

    exit_code = 3


class ConflictError(AunnError, RuntimeError):
    """Another writer was faster. Nothing was lost: the same command again will do."""

    exit_code = 4


class StoreError(AunnError, RuntimeError):
    """The disk or the object store refused. Nothing committed was lost: once it is mended, the same command will do."""

    exit_code = 4
