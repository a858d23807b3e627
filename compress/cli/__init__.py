"""The command line: arguments in, results printed; the work is done by `compress.pipeline`."""

from compress.cli.app import app, main
from compress.compute.threads import spin_little

spin_little()  # nothing above loads PyTorch, whose threads read it then

__all__ = ["app", "main"]
