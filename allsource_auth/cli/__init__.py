"""The console script ``allsource-auth``.

The packages that it needs are in the extra ``cli``; ``serve`` also needs those in the extra ``server``. They are imported when
`main` runs, not when this package is imported.

Exit codes: 0 success; 1 a check failed, findings are left, or the store cannot be used; 2 wrong usage or a missing package;
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

EXTRAS = {
    "cyclopts": "cli",
    "hdrh": "cli",
    "rich": "cli",
    "starlette": "server",
    "uvicorn": "server",
    "websockets": "server",
}
"""The extra that installs a package, by the package's import name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (default: those of the process) and return the exit code."""
    try:
        from allsource_auth.cli.app import run

        return run(sys.argv[1:] if arguments is None else arguments)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        part = "the command line" if extra == "cli" else "the local Allsource"
        sys.stderr.write(f"allsource-auth: {part} needs more packages; install allsource-auth[{extra}]\n")
        return 2
    except KeyboardInterrupt:
        # A second Ctrl-C ends the running task with an exception, which asyncio would log with a traceback.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        sys.stderr.write("allsource-auth: interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader closed the pipe. Without this, Python reports the error again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
