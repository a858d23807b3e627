"""Runs commands in one process, as starting Python for each takes seconds; requests and answers are lines of JSON."""

import contextlib
import json
import os
import signal
import sys
import traceback
from types import FrameType

from typer.testing import CliRunner

from compress.cli import app


class Late(BaseException):
    """A command took too long; no `except Exception` takes it for something else."""


def _late(_: int, frame: FrameType | None) -> None:
    raise Late(" < ".join(f"{entry.name}:{entry.lineno}" for entry in reversed(traceback.extract_stack(frame)[-6:])))


def main() -> None:
    """Answer requests {args, folder, seconds} until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever native code prints goes where its errors go
    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, _late)
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["folder"])
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # of work: others may keep the machine busy
        signal.alarm(10 * request["seconds"])
        late = ""
        with contextlib.suppress(Late):
            try:
                result = CliRunner().invoke(app, request["args"], prog_name="compress")
            except Late as error:
                late = str(error) or "somewhere"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        if late:
            answer = {"late": late}
        else:
            ended = isinstance(result.exception, SystemExit | None)
            escaped = "" if ended else "".join(traceback.format_exception(result.exception))
            answer = {"rc": result.exit_code, "err": result.stderr, "escaped": escaped}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
