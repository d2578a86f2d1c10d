"""The comparison of the HTTP engine: which targets count as reached, when the machine counts as busy, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.http_engine import BUSY, TARGETS, reached, show_all, variation

ROOT = Path(__file__).parents[2]


def row(per_second: list[float], p50: list[float] | None = None) -> dict[str, Any]:
    rounds = {"per_second": per_second, "p50_us": p50 or [1.0] * len(per_second)}
    rounds |= {"p99_us": rounds["p50_us"], "cpu_us": rounds["p50_us"]}
    names = ("p50_us", "p90_us", "p99_us", "p999_us", "cpu_us", "per_second")
    return dict.fromkeys(names, 1.0) | {"rounds": rounds}


def test_target_is_reached_by_the_median_of_the_rounds() -> None:
    """Fast enough in two of three rounds, and cheap enough in two of three."""
    raw = row([100.0, 100.0, 100.0], [100.0, 100.0, 100.0])
    found = {"reads": {"32": {"sessions.get": row([74.0, 76.0, 99.0], [219.0, 221.0, 1.0]), "raw protocol": raw}}}
    assert {target.figure: (ratio, good) for target, ratio, good in reached(found)} == {
        "per second": (0.76, True),
        "CPU": (2.19, True),
    }
    missed = {"reads": {"32": {"sessions.get": row([74.0], [221.0]), "raw protocol": row([100.0], [100.0])}}}
    assert [good for _, _, good in reached(missed)] == [False, False]


def test_targets_name_what_is_compared_once() -> None:
    assert len({str(target) for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize(("rates", "busy"), [([95.0, 100.0, 109.0], False), ([95.0, 100.0, 111.0], True)])
def test_machine_is_busy_if_the_raw_protocol_varies(
    rates: list[float], busy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"sessions.get": row([1.0] * 3), "load_session": row([1.0] * 3), "raw protocol": row(rates)}
    assert (variation(rows["raw protocol"]) > BUSY) == busy
    show_all({"reads": {"1": rows}})
    assert ("the machine was busy" in capsys.readouterr().out) == busy


def test_benchmarks_of_the_library_need_no_other_http_client() -> None:
    """Those of the session ``bench`` run where only the library is installed."""
    scripts = ("http_engine", "latest_state", "memory", "operations", "reads", "scale", "sign_up", "writes")
    code = (
        "import sys, importlib\n"
        f"for name in {scripts!r}: importlib.import_module(f'benchmarks.{{name}}')\n"
        "print([name for name in ('aiohttp', 'httpx_aiohttp', 'pyreqwest', 'trustme') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
