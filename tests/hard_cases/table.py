"""Write docs/models.md from what becomes of every hard case: python -m tests.hard_cases.table."""

from pathlib import Path

from tests.hard_cases.cases import ALL
from tests.hard_cases.judging import Case, Row, judge

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = (
    "| exporter | kind | network | inspect | import | gradient | groups pruned | int8 with parity | refused because |"
)
TEXT = """# Models

Which networks work, by exporter. Each row is a small network with random weights in the spelling of that exporter,
made and tried by `tests/hard_cases`. `python -m tests.hard_cases.table` writes the table, and tests compare the two.

- *inspect*: `compress inspect FILE` without options ends with 0.
- *import*: the PyTorch network computes what onnxruntime makes of the file, to 1e-4 of the largest value.
- *gradient*: it reaches the weights from the first output, so that the network can be trained.
- *groups pruned*: so many groups of coupled channels are prunable; half of the channels of all of them were removed,
  and the network, in PyTorch and as a file, computes what it does with those channels silenced. 0: every channel is
  protected, and `compress inspect` says why.
- *int8 with parity*: calibrated and written as an int8 file that computes what its network does, tensor by tensor.

What is refused is refused in one line, the one in the last column. The rows of PyTorch are real exports; those of
Paddle2ONNX, tf2onnx and Keras are written after files of theirs.

"""


def line(case: Case, row: Row) -> str:
    """One row of the table."""
    words = [
        *(case.exporter, case.family, case.name),
        *("yes" if done else "no" for done in (row.inspected, row.imported, row.trained)),
        "–" if row.prunable is None else str(row.prunable),
        "yes" if row.int8 else "no",
        row.why,
    ]
    return f"| {' | '.join(word.replace('|', '/') for word in words)} |".replace("|  |", "| |")


def page() -> str:
    """The whole page."""
    rows = [line(case, judge(case)) for case in ALL]
    return "\n".join([TEXT + HEAD, "|" + "---|" * 9, *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
