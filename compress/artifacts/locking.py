"""One writer at a time: a lock file beside a result that names the process which is writing it."""

import contextlib
import datetime
import errno
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.artifacts.store import check_writable, remove_partial
from compress.errors import OutputError

try:
    import fcntl as _fcntl
except ImportError:  # not a POSIX system
    _fcntl = None  # type: ignore[assignment]

fcntl: Any = _fcntl
"""None where the system has no such locks."""

_BUSY = {errno.EAGAIN, errno.EACCES}
_held: dict[int, Path] = {}
"""File descriptors of this process's locks -> their files: a forked child closes them, so that it holds none."""
_told: set[str] = set()


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as its lock file says."""

    pid: int
    host: str
    since: str
    command: str

    def describe(self) -> str:
        """Who it is, in a few words.

        >>> Holder(7, "ocr1", "2025-01-31 09:00:00 UTC", "compress run r.yaml").describe()
        'process 7 on ocr1, since 2025-01-31 09:00:00 UTC: compress run r.yaml'
        """
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a result, a file or a folder, while the block runs: nobody else writes it, in this process or another.

    The lock is the operating system's (flock) on a hidden file beside the result, `.NAME.lock` (in a folder: `.lock`),
    which is removed at the end. A folder is not locked while another process holds a file in it, nor a file while
    another holds its folder. When a process ends, even killed, the system releases its locks: the file that it leaves
    behind is taken over, and what it left half-written of the result is removed. Where there are no such locks, that is
    said on stderr, and nothing is held.

    Args:
        path: the result; it need not exist. Its folder is made.

    Raises:
        OutputError: another process holds it, or nothing can be written there.
    """
    file = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    check_writable(file.parent)
    handle = _acquire(file, path)
    if handle is None:
        yield
        return
    _held[handle] = file.resolve()
    try:
        # Each side first holds its own lock, then looks at the other's: of two at once, one at least sees the other.
        for other in file.parent.glob(".?*.lock") if path.is_dir() else (file.with_name(".lock"),):
            _refuse_held(other, path)
        left_by = _read_holder(file)
        if left_by is not None and left_by.host == socket.gethostname():
            remove_partial(path, left_by.pid)
        _write_holder(handle)
        yield
    finally:
        _held.pop(handle, None)
        with contextlib.suppress(OSError):
            file.unlink()
        os.close(handle)


def _acquire(file: Path, path: Path) -> int | None:
    """The lock file, open and locked; None where there are no locks.

    Raises:
        OutputError: another process holds it.
    """
    if fcntl is None:
        _say(path, "this system has no fcntl")
        return None
    while True:
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{file}: cannot be written ({error.strerror}). Delete it, or choose another --out."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_holder(file)
            os.close(handle)
            if error.errno not in _BUSY:
                _say(path, f"its file system locks no files: {error.strerror}")
                return None
            raise _in_use(path, holder) from error
        if _is_same(handle, file):
            return handle
        os.close(handle)  # its holder removed it between our opening and locking it


def _refuse_held(file: Path, path: Path) -> None:
    """Refuse a result whose folder, or a file in which, another process holds by this lock file.

    Raises:
        OutputError: it does.
    """
    if file.resolve() in _held.values():
        return
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        return  # nobody has it
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise _in_use(path, _read_holder(file)) from error
    finally:
        os.close(handle)


def _in_use(path: Path, holder: Holder | None) -> OutputError:
    who = holder.describe() if holder else "another process"
    return OutputError(f"{path}: in use by {who}. Wait until that has ended, or choose another --out.")


def _is_same(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _read_holder(file: Path) -> Holder | None:
    """Whom the file names; None where it names nobody (yet)."""
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _write_holder(handle: int) -> None:
    since = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    holder = Holder(os.getpid(), socket.gethostname(), since, command)
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(asdict(holder)) + "\n").encode(), 0)


def _say(path: Path, reason: str) -> None:
    """Once for each reason: two runs on the same results would not notice each other."""
    if reason not in _told:
        _told.add(reason)
        print(f"{path}: not locked ({reason}). Start no second run with the same --out.", file=sys.stderr)


def _forget() -> None:
    """In a forked child: the locks are its parent's, and must not outlive it."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
