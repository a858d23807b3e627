"""What names of files mean: which are images, and which tar archives a path stands for. Nothing is opened here."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from compress.errors import DataError
from compress.progress import be

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FOREIGN_SUFFIXES = (
    *(".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jfif", ".jpe", ".ppm", ".pgm", ".pbm", ".tga"),
    *(".psd", ".ico", ".pdf", ".djvu", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw"),
)
"""Of files that users take for images, too, and that are passed over."""
SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
DATABASE = "data.mdb"
"""The file of an LMDB folder."""
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_sharded(path: Path) -> bool:
    """Whether a path means tar archives: by its name, or a folder that holds some, and neither images nor an LMDB."""
    if not path.is_dir():
        return path.name.endswith((SUFFIX, *COMPRESSED))
    if not any(path.glob(f"*{SUFFIX}")) or (path / DATABASE).is_file():
        return False
    return not any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))


def refuse_shards(path: Path) -> None:
    """Raise DataError where a path means archives, for what cannot be read from them."""
    if is_sharded(path):
        raise DataError(
            f"{path}: tar archives hold crops for recognition and classification: to train, validate or test on, and "
            "crops without labels beside these. For anything else unpack them, and name the folder."
        )


def find_archives(path: Path) -> tuple[Path, ...]:
    """The archives that a path means, in the order of a brace range, else by name.

    Args:
        path: an archive, `train-{000..099}.tar`, `part-{a,b}.tar`, `train-*.tar`, or a folder of archives.

    Raises:
        DataError: there are none, some of a range are missing, or they are compressed.
    """
    if path.is_dir():
        return tuple(sorted(path.glob(f"*{SUFFIX}")))
    if path.name.endswith(COMPRESSED):
        raise DataError(
            f"{path}: a compressed archive, whose members cannot be read one by one. Uncompress it: images are "
            "compressed already."
        )
    if path.is_file():
        return (path,)
    named = [Path(text) for text in expand_braces(str(path))]
    found = [each for name in named for each in (_matches(name) if _is_pattern(name) else [name])]
    missing = [file for file in found if not file.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(found)} archives {be(len(missing))} missing, the first is {missing[0]}."
            if len(found) > 1
            else f"{path}: no such file. Give a tar archive, a pattern as train-{{000..099}}.tar, or a folder of them."
        )
    if not found:
        raise DataError(f"{path}: matches no archive. Quote the pattern on a command line, and check its folder.")
    return tuple(found)


def expand_braces(text: str) -> Iterator[str]:
    """Every text that braces stand for: numbers, filled with zeros as the first one is, or words with commas.

    >>> list(expand_braces("train-{098..100}.tar")), list(expand_braces("{a,b}{1..2}"))
    (['train-098.tar', 'train-099.tar', 'train-100.tar'], ['a1', 'a2', 'b1', 'b2'])
    """
    parts = BRACES.split(text)  # what stands between braces is at odd places
    choices = [_choices(part) if place % 2 else [part] for place, part in enumerate(parts)]
    return ("".join(chosen) for chosen in itertools.product(*choices))


def _choices(inside: str) -> list[str]:
    numbers = RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def _is_pattern(path: Path) -> bool:
    return any(character in str(path) for character in "*?[") and not path.exists()


def _matches(pattern: Path) -> list[Path]:
    if any("**" in part and part != "**" for part in pattern.parts):  # which Python takes for * since 3.13
        raise DataError(f"{pattern}: not a pattern (** beside other characters). Use e.g. train-*.tar.")
    try:
        return sorted(Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise DataError(f"{pattern}: not a pattern ({error}). Use e.g. train-*.tar.") from error
