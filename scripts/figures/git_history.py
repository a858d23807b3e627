"""What git tells of a repository, and its files at an earlier commit."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from figures.published import Read

from compress.errors import CompressError
from compress.recipe import Recipe, load_recipe


def git(root: Path, *words: str) -> str:
    """What git prints.

    Raises:
        CompressError: it fails; its own words say why.
    """
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    if done.returncode:
        raise CompressError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_reader(commit: str, root: Path) -> Read:
    """The text of files as they were at a commit, by their path."""
    done = subprocess.run(
        ["git", "-C", str(root), "archive", commit, "compress", "recipes"], capture_output=True, check=False
    )
    if done.returncode:
        raise CompressError(f"git archive: {done.stderr.decode().strip()}")
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.endswith((".py", ".yaml")):
                texts[member.name] = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
    return texts.get


def module_source(read: Read, name: str) -> str | None:
    """A module's source at a commit."""
    path = name.replace(".", "/")
    return read(f"{path}.py") or read(f"{path}/__init__.py")


def recipe_at(read: Read, name: str, root: Path) -> Recipe:
    """A recipe as it was at a commit, read by today's rules."""
    text = read(name)
    if text is None:
        raise CompressError(f"{name}: not there at that commit.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, check_files=False)
