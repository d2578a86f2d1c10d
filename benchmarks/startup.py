"""How long ``import allsource_auth`` takes beyond ``import httpx``, each in a fresh interpreter, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
CODE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def milliseconds(module: str) -> float:
    done = subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000


def main() -> None:
    milliseconds("httpx"), milliseconds("allsource_auth")  # byte code is compiled once, as after an install
    pairs = [(milliseconds("httpx"), milliseconds("allsource_auth")) for _ in range(ROUNDS)]
    more = sorted(ours - httpx for httpx, ours in pairs)
    print(f"import httpx            {statistics.median(pair[0] for pair in pairs):6.1f} ms")
    print(f"import allsource_auth   {statistics.median(pair[1] for pair in pairs):6.1f} ms")
    print(f"difference              {statistics.median(more):6.1f} ms ({more[0]:.1f} to {more[-1]:.1f})")


if __name__ == "__main__":
    main()
