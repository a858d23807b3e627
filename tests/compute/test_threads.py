"""Threads that wait sleep soon, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from compress.compute.threads import SPINS, spin_little


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_says_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv(name, "ACTIVE" if name == "OMP_WAIT_POLICY" else "5")
    before = dict(os.environ)
    spin_little()
    assert dict(os.environ) == before


def test_the_program_says_it_before_pytorch_is_loaded() -> None:
    code = "import os, sys, compress.cli; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    own = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    found = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(SPINS), "False"]
