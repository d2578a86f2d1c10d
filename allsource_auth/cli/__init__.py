"""The console script ``allsource-auth``.

What it needs beyond the library comes with the extra ``cli``, and with ``server`` for ``serve``; nothing of that is
imported before `main` runs.

Exit codes: 0 everything held, 1 a check failed or the store cannot be used, 2 wrong usage or a missing package,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

NEEDED = {
    "cyclopts": "cli",
    "hdrh": "cli",
    "rich": "cli",
    "starlette": "server",
    "uvicorn": "server",
    "websockets": "server",
}
"""The packages of the extras, as they are imported, and the extra that brings them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (default: those of the process); returns the exit code."""
    try:
        from allsource_auth.cli.app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as error:
        extra = NEEDED.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        what = "the command line" if extra == "cli" else "the local Allsource"
        sys.stderr.write(f"allsource-auth: {what} needs more packages; install allsource-auth[{extra}]\n")
        return 2
    except KeyboardInterrupt:
        # A second Ctrl-C ends the running task with an exception that asyncio would log with its traceback.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        sys.stderr.write("allsource-auth: interrupted\n")
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
