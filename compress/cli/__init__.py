"""The command line: arguments in, results printed; the work is done by `compress.pipeline`."""

from compress.cli.app import app, main

__all__ = ["app", "main"]
