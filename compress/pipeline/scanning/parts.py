"""Files of a scan that several processes share: each keeps its cells in one of its own until they are joined."""

from dataclasses import replace
from pathlib import Path

from compress import artifacts
from compress.artifacts import Sensitivity
from compress.pipeline.code import merge
from compress.prune.sensitivity import join_scans


def part_file(path: Path, rank: int) -> Path:
    """Where the process of that number keeps its cells; the first one's are in the scan's file itself."""
    return path.with_suffix(f".part{rank}.json") if rank else path


def join_parts(path: Path, identity: str) -> None:
    """Put the cells of part files into the scan's file, and remove them.

    Raises:
        ArtifactError: one of them is of another model, data or settings.
    """
    parts = sorted(path.parent.glob(f"{path.stem}.part*.json"))
    scans: list[Sensitivity] = []
    for file in [path, *parts] if path.exists() else parts:
        scan = artifacts.load(Sensitivity, file)
        artifacts.check_fresh(file, scan.fingerprint, identity)
        scans.append(scan)
    if not parts:
        return
    joined = join_scans(scans[0], scans[1:])
    code = scans[0].code
    for scan in scans[1:]:
        code = merge(code, scan.code)
    artifacts.save(replace(joined, code=code), path)
    for part in parts:
        part.unlink()
