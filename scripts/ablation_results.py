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
from compress.artifacts import Latency, Machine, StageResult
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


@dataclass(frozen=True)
class Timing:
    """Latency of each row's last file, all of them in turn in one run; the deployed file is the row `fp32`."""

    date: str
    rows: dict[str, Latency]
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
        timing = artifacts.load(Timing, out / "latency.json") if (out / "latency.json").exists() else None
        artifacts.write_atomic(out / "ablation.md", render(results, command, timing).encode())


def last_files(out: Path, names: Sequence[str], deployed: Path) -> dict[str, Path]:
    """Row -> its last file, of every row that has one; first of all the deployed file."""
    files = {"fp32": deployed}
    for name in names:
        if name != "fp32" and result_file(out, name).exists():
            result = artifacts.load(Result, result_file(out, name))
            if last := result.int8 or result.fp32:
                files[name] = out / name / last.file
    return files


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


def render(results: Sequence[Result], command: str, timing: Timing | None = None) -> str:
    """All rows as Markdown, with a caption that says how they were measured."""
    if not results:
        return ""
    name, count = results[0].metric_name, results[0].count
    header = (
        "row",
        "changed",
        f"fp32 {name}",
        "KB",
        f"int8 {name}",
        "KB",
        "MACs",
        "ms [p10-p90]",
        "speed",
        "training s",
    )
    lines = [header, ("---", "---", *["---:"] * 8)]
    lines += [cells(result, timing.rows.get(result.name) if timing else None) for result in results]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    machines = dict.fromkeys(tables.machine_line(result.machine) for result in results)
    caption = (
        f"- command: `{command}`, or parts of it; at commit {', '.join(dict.fromkeys(r.commit for r in results))}",
        f"- {min(r.date for r in results)} to {max(r.date for r in results)}; {'; '.join(machines)}",
        f"- {name}: on {count} validation images, which also choose each training's best epoch; one image is "
        f"{1 / max(1, count):.4f}. fp32: the fine-tuned file; int8: the file made from it. KB: 1000 bytes. MACs and ms "
        "are the row's last file's. Training seconds: fine-tuning and quantisation, maybe beside other work.",
        *(f"- {line}" for line in timing_lines(timing)),
    )
    return f"{table}\n\n" + "\n".join(caption) + "\n"


def timing_lines(timing: Timing | None) -> tuple[str, ...]:
    """How the latencies were measured."""
    if timing is None:
        return ()
    first = timing.rows["fp32"]
    return (
        f"ms: {timing.date}, median of one image over {first.runs} runs, {first.threads} thread(s), all rows' files in "
        "turn; speed: over the deployed file.",
    )


def cells(result: Result, latency: Latency | None = None) -> tuple[str, ...]:
    """A row's line."""
    changed = ", ".join(
        [*(f"`{setting}`" for setting in result.settings), *(f"no `{step}`" for step in result.without)]
    )
    stages = [stage for stage in (result.fp32, result.int8) if stage]
    if not stages:
        return (result.title, changed or tables.NONE, f"failed: {result.failed}", *[tables.NONE] * 7)
    last = stages[-1]
    return (
        result.title,
        changed or tables.NONE,
        *figures(result.fp32),
        *figures(result.int8),
        tables.count(last.cost.macs),
        tables.milliseconds(latency) if latency else tables.NONE,
        f"{latency.speedup:.2f}x" if latency and latency.speedup else tables.NONE,
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
