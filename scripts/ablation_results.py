"""Results of an ablation (scripts/ablate.py): one file a row, read together into one table."""

import contextlib
import dataclasses
import fcntl
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress import artifacts
from compress.artifacts import Machine, StageResult
from compress.recipe import Recipe
from compress.report import tables

POLL_S = 2.0


@dataclass(frozen=True)
class Result:
    """What came of a row. `fp32` and `int8` are what the run's report says of its last float and its int8 file."""

    name: str
    title: str
    settings: tuple[str, ...]
    without: tuple[str, ...]
    fingerprint: str
    commit: str
    date: str
    machine: Machine
    metric_name: str
    count: int = 0
    """Validation images."""
    fp32: StageResult | None = None
    int8: StageResult | None = None
    notes: tuple[str, ...] = ()
    failed: str = ""
    """Why there are no figures, where training or export failed: a finding, too."""
    version: int = artifacts.VERSION


def result_file(out: Path, name: str) -> Path:
    """Where the row of that name leaves its result."""
    return out / "rows" / f"{name}.json"


def row_identity(recipe: Recipe) -> str:
    """Fingerprint of what decides a row's figures."""
    settings = recipe.model_dump(mode="json", exclude={"name", "out", "threads", "compare", "gates"})
    files = (Path(file) for file in (recipe.model, recipe.weights) if file)
    return artifacts.fingerprint(settings, *(file.read_bytes() for file in files if file.is_file()))


def merge(out: Path, names: Sequence[str], command: str) -> None:
    """Write ablation.json and ablation.md anew from every row's file, in the order of `names`."""
    with locked(out / ".merge.lock"):
        files = [file for name in names if (file := result_file(out, name)).exists()]
        results = [artifacts.load(Result, file) for file in files]
        data = {"rows": [dataclasses.asdict(result) for result in results]}
        artifacts.write_atomic(out / "ablation.json", (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
        artifacts.write_atomic(out / "ablation.md", render(results, command).encode())


@contextlib.contextmanager
def locked(path: Path, unless: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold a lock, which the system takes back if this process dies; while another one has it, wait.

    Yields:
        True with the lock; False without it, because `unless` came true.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        while not unless():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
                return
            time.sleep(POLL_S)
        yield False


def commit() -> str:
    """The commit of this checkout, with + where files differ from it; `unknown` outside of one."""
    try:
        head, changed = (
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def render(results: Sequence[Result], command: str) -> str:
    """All rows as Markdown, with a caption that says how they were measured."""
    if not results:
        return ""
    name, count = results[0].metric_name, results[0].count
    header = ("row", "changed", f"fp32 {name}", "KB", f"int8 {name}", "KB", "MACs", "speed", "training s")
    lines = [header, ("---", "---", *["---:"] * 7), *(cells(result) for result in results)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    machines = dict.fromkeys(tables.machine_line(result.machine) for result in results)
    caption = (
        f"- command: `{command}`, or parts of it; at commit {', '.join(dict.fromkeys(r.commit for r in results))}",
        f"- {min(r.date for r in results)} to {max(r.date for r in results)}; {'; '.join(machines)}",
        f"- {name}: on {count} validation images, which also choose each training's best epoch; one image is "
        f"{1 / max(1, count):.4f}. fp32: the fine-tuned file; int8: the file made from it. KB: 1000 bytes. MACs and "
        "speed are of the row's last file; speed: over the deployed file, both in turn in that row's own run. Training "
        "seconds: fine-tuning and quantisation, on a machine that may have had other work.",
    )
    return f"{table}\n\n" + "\n".join(caption) + "\n"


def cells(result: Result) -> tuple[str, ...]:
    """A row's line."""
    changed = ", ".join(
        [*(f"`{setting}`" for setting in result.settings), *(f"no `{step}`" for step in result.without)]
    )
    stages = [stage for stage in (result.fp32, result.int8) if stage]
    if not stages:
        return (result.title, changed or tables.NONE, f"failed: {result.failed}", *[tables.NONE] * 6)
    last = stages[-1]
    speed = last.latency.speedup if last.latency else None
    return (
        result.title,
        changed or tables.NONE,
        *figures(result.fp32),
        *figures(result.int8),
        tables.count(last.cost.macs),
        f"{speed:.2f}x" if speed else tables.NONE,
        f"{sum(stage.seconds for stage in stages):.0f}",
    )


def figures(stage: StageResult | None) -> tuple[str, str]:
    """Metric and kilobytes."""
    if stage is None:
        return tables.NONE, tables.NONE
    return f"{stage.score.metric:.4f}", tables.kilobytes(stage.cost.size_bytes)


def summary(result: Result) -> str:
    """A row in one line."""
    if result.failed:
        return f"failed: {result.failed}"
    parts = ((kind, stage) for kind, stage in (("fp32", result.fp32), ("int8", result.int8)) if stage)
    return ", ".join(f"{kind} {' in '.join(figures(stage))} KB" for kind, stage in parts)
