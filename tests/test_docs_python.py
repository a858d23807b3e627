"""docs/python.md: its blocks, one program, as written."""

import re
from pathlib import Path

import pytest

from tests.documents import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks), "docs/python.md", "exec"), names)
    made = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.onnx")}
    assert {"runs/python/int8.onnx", "runs/stages/int8.onnx", "int8.onnx", "smaller.onnx"} <= made
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "smaller.onnx").stat().st_size
