"""How long threads that have nothing to do keep their cores."""

import os

SPINS = 1000
"""How often a waiting thread looks whether there is work before it sleeps.

libgomp, which PyTorch computes with on Linux, looks for milliseconds where there are no more threads than cores; on a
core that another program needs as well, all others wait for the one that looks. A training step of the PP-OCR
classifier, 2 threads on 2 cores of an AMD EPYC, ms an image: 6.5 as it is, 6.0 with 10,000 looks and 7.5 without any
on idle cores; beside a program that keeps one core busy 275, 33 and 20, and with 1,000 looks 19 (2026-11-23).
"""


def spin_little() -> None:
    """Let waiting threads sleep soon, unless the environment says otherwise; to be called before PyTorch is loaded."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
