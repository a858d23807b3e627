"""PaddleOCR label lists: one `path<TAB>text` per line, image paths relative to the list's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import DataError

MAX_BAD_SHARE = 0.5
"""Skip missing or unreadable images up to this share of a list; above it, stop.

A few bad files are ordinary in collected data. When most are bad the list does not belong to the folder
(moved, half copied, wrong prefix), and a metric on what is left would be of something else.
"""
NAMED_AT_MOST = 5
"""Bad images that a warning names before it says how many more there are."""


@dataclass(frozen=True)
class Entry:
    """One labelled image; `line` counts from 1."""

    image: Path
    text: str
    line: int


@dataclass(frozen=True)
class LabelList:
    """A label list whose `entries` all have an image file; `missing` are the lines that have none."""

    path: Path
    entries: tuple[Entry, ...]
    missing: tuple[Entry, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """One line that counts and names the missing images, or nothing."""
        total = len(self.entries) + len(self.missing)
        return skipped_warning(self.path, "missing", [entry.image.name for entry in self.missing], total)


def read_labels(path: Path) -> LabelList:
    """Read `path<TAB>text` lines (UTF-8, with or without BOM, any line ends; blank lines are skipped).

    Raises:
        DataError: no such file, not UTF-8, no lines, a line without exactly one tab or without a path before it, or
            more than `MAX_BAD_SHARE` of the images missing. A text may be empty: what that means is for the task.
    """
    lines = _read_text(path).replace("\r\n", "\n").split("\n")
    entries = [_parse_line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise DataError(f"{path}: no lines. Expected one image a line: path<TAB>text.")
    there = [entry.image.is_file() for entry in entries]
    found = tuple(entry for entry, exists in zip(entries, there, strict=True) if exists)
    missing = tuple(entry for entry, exists in zip(entries, there, strict=True) if not exists)
    check_bad_share(path, "missing", [str(entry.image) for entry in missing], len(entries))
    return LabelList(path, found, missing)


def check_bad_share(path: Path, kind: str, bad: Sequence[str], total: int) -> None:
    """Stop when too many of a list's images are bad. `kind` says how: `missing` or `unreadable`.

    Raises:
        DataError: more than `MAX_BAD_SHARE` of `total` are bad.
    """
    if len(bad) > MAX_BAD_SHARE * total:
        advice = "Image paths are relative to the list's folder." if kind == "missing" else "Copy the images again."
        raise DataError(
            f"{path}: {len(bad)} of {total} images are {kind}, the first is {bad[0]}. "
            f"At most {MAX_BAD_SHARE:.0%} may be. {advice}"
        )


def skipped_warning(path: Path, kind: str, names: Sequence[str], total: int) -> tuple[str, ...]:
    """One line that counts and names skipped images, or nothing when there are none.

    >>> skipped_warning(Path("val.txt"), "missing", ["a.png", "b.png"], 9)
    ('val.txt: 2 of 9 images skipped, missing: a.png, b.png',)
    """
    if not names:
        return ()
    return (f"{path}: {len(names)} of {total} images skipped, {kind}: {name_some(names)}",)


def name_some(names: Sequence[str]) -> str:
    """The first names, and how many more there are.

    >>> name_some([*"abcdefg"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Expected a label list with lines of path<TAB>text.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start}). "
            "Expected a label list with lines of path<TAB>text, saved as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Expected a label list.") from error


def _parse_line(path: Path, number: int, line: str) -> Entry:
    columns = line.split("\t")
    if len(columns) != 2 or not columns[0].strip():
        shown = line if len(line) <= 80 else line[:77] + "..."
        raise DataError(
            f"{path}: line {number}: got {shown!r}. Expected two columns with one tab between them: path<TAB>text."
        )
    image, text = columns
    return Entry(path.parent / image.strip(), text.rstrip("\r") if text.strip() else "", number)
