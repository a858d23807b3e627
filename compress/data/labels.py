"""PaddleOCR label lists: one `path<TAB>text` per line, image paths relative to the list's folder."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.headers import TOO_LARGE
from compress.errors import DataError
from compress.progress import be

NAMED_AT_MOST = 5
"""Bad images that a warning names before it says how many more there are."""
UNLISTABLE = "named with a tab, a line break or bytes that are not UTF-8"
"""A label list cannot hold such a name."""
ADVICE = {
    "missing": "Image paths are relative to the list's folder.",
    "unreadable": "Copy the images again, or remove them.",
    "without a text file": "Copy the texts again.",
    UNLISTABLE: "Rename them.",
    TOO_LARGE: "Make them smaller; points are in their pixels.",
}
"""Why images are skipped -> what to do; for other reasons that is plain."""


@dataclass(frozen=True)
class ListRules:
    """What is asked of lists of images.

    Raises:
        DataError: a rule makes no sense.
    """

    max_skipped: float = 0.01
    """Images that are missing or cannot be used are skipped up to this share of each list, and so are its regions.

    A few bad files are ordinary in collected data; with more of them a metric on what is left is of something else.
    """
    roots: tuple[Path, ...] = ()
    """Folders that the paths in a label list may lead into, beside the list's own folder."""
    own_lists: tuple[Path, ...] = ()
    """Label lists that the program wrote itself, of files that it found: their paths may lead anywhere."""
    allow_overlap: bool = False
    """Lists that are learned from may share images with those that are scored on."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise DataError(f"max_skipped: got {self.max_skipped:g}. Must be a share in [0, 1]. Use e.g. 0.01.")
        for root in self.roots:
            if not root.is_dir():
                raise DataError(f"data root: {root}: no such folder. Name the folder that paths in lists lead into.")


DEFAULT_RULES = ListRules()


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


def read_labels(path: Path, rules: ListRules = DEFAULT_RULES) -> LabelList:
    """Read `path<TAB>text` lines (UTF-8, with or without BOM, any line ends; blank lines are skipped).

    Raises:
        DataError: no such file, not UTF-8, no lines, a line without exactly one tab or without a path before it, a path
            that leads out of the list's folder (see `ListRules.roots`), or more images missing than the rules allow. A
            text may be empty: what that means is for the task.
    """
    entries = [Entry(path.parent / image, text, number) for number, image, text in split_lines(path)]
    check_inside(path, ((entry.line, str(entry.image)) for entry in entries), rules)
    there = [os.path.isfile(entry.image) for entry in entries]
    found = tuple(entry for entry, exists in zip(entries, there, strict=True) if exists)
    missing = tuple(entry for entry, exists in zip(entries, there, strict=True) if not exists)
    check_skipped(path, {"missing": [str(entry.image) for entry in missing]}, len(entries), rules)
    return LabelList(path, found, missing)


def split_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, image's path and text of each line of a label list.

    Raises:
        DataError: as `read_labels`, but for paths.
    """
    empty = True
    for number, line in enumerate(_read_text(path).replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            empty = False
            yield (number, *_parse_line(path, number, line))
    if empty:
        raise DataError(f"{path}: no lines. Expected one image a line: path<TAB>text.")


def check_inside(path: Path, images: Iterable[tuple[int, str]], rules: ListRules) -> None:
    """Raise DataError where a path leads out of the folders it may be in; symbolic links are followed.

    Args:
        path: the list.
        images: number of the line, and the image's path.
        rules: say which folders.
    """
    if path in rules.own_lists:
        return
    allowed = [os.path.join(os.path.realpath(folder), "") for folder in (path.parent, *rules.roots)]
    resolved: dict[str, str] = {}
    for line, image in images:
        folder, name = os.path.split(image)
        if folder not in resolved:
            resolved[folder] = os.path.realpath(folder)
        target = os.path.join(resolved[folder], name)
        if name == os.pardir or os.path.islink(target):
            target = os.path.realpath(target)
        if not any(target.startswith(root) for root in allowed):
            also = "".join(f" and of {root}" for root in rules.roots)
            raise DataError(
                f"{path}: line {line}: {image} leads out of the list's folder{also}, to {target}. "
                "Name the folder that paths may lead into: data.root (--data-root)."
            )


def check_skipped(
    path: Path,
    skipped: Mapping[str, Sequence[str]],
    total: int,
    rules: ListRules,
    what: str = "images",
    advice: str = "",
) -> None:
    """Stop when too many of a list's images (or regions) are skipped.

    Args:
        path: the list, for the message.
        skipped: why (`missing`, ...) -> their names, or paths; the first of them are named.
        total: all of the list.
        rules: how many may be.
        what: they are.
        advice: what to do, beside `ADVICE`.

    Raises:
        DataError: more of `total` than the rules allow.
    """
    reasons = {reason: names for reason, names in skipped.items() if names}
    count = sum(len(names) for names in reasons.values())
    if count <= rules.max_skipped * total:
        return
    named = name_some(list(dict.fromkeys(shown(name) for names in reasons.values() for name in names)))
    steps = "".join(
        f"{step} " for step in [ADVICE[reason] for reason in reasons if reason in ADVICE] + ([advice] if advice else [])
    )
    raise DataError(
        f"{path}: {count} of {total} {what} {be(count)} {' or '.join(reasons)}: {named}. "
        f"At most {100 * rules.max_skipped:g}% may be. {steps}"
        "To allow more: data.max_skipped (--max-skipped)."
    )


def skipped_share(counts: Iterable[tuple[int, int]], what: str = "images") -> tuple[str, ...]:
    """One line to stand beside a metric: how many of all lists' images were skipped, of how many; or nothing.

    >>> skipped_share([(1, 20), (0, 30)]), skipped_share([(0, 20)])
    (('1 of 50 images skipped',), ())
    """
    pairs = list(counts)
    skipped, total = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    return (f"{skipped} of {total} {what} skipped",) if skipped else ()


def skipped_warning(path: Path, kind: str, names: Sequence[str], total: int) -> tuple[str, ...]:
    """One line that counts and names skipped images, or nothing when there are none.

    >>> skipped_warning(Path("val.txt"), "missing", ["a.png", "b.png"], 9)
    ('val.txt: 2 of 9 images skipped, missing: a.png, b.png',)
    """
    if not names:
        return ()
    return (f"{path}: {len(names)} of {total} images skipped, {kind}: {name_some([shown(name) for name in names])}",)


def shown(name: str) -> str:
    """A name as it can stand in a line: escaped where it holds what does not print.

    >>> shown("a b.png"), shown("a\\tb.png")
    ('a b.png', "'a\\\\tb.png'")
    """
    return name if name.isprintable() else repr(name)


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


def _parse_line(path: Path, number: int, line: str) -> tuple[str, str]:
    """Path and text."""
    columns = line.split("\t")
    if len(columns) != 2 or not columns[0].strip() or "\0" in line:
        shown = line if len(line) <= 80 else line[:77] + "..."
        raise DataError(
            f"{path}: line {number}: got {shown!r}. Expected two columns with one tab between them: path<TAB>text."
        )
    image, text = columns
    return image.strip(), text.rstrip("\r") if text.strip() else ""
