"""Comparing results: which figures are compared, and their spread. Result files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.compare import of_files, of_turns
from benchmarks.results import facts, load, save, spread


def row(p50: float, rounds: list[float] | None = None) -> dict[str, Any]:
    return {"p50_us": p50} | ({} if rounds is None else {"spread": {"p50_us": spread(rounds)}})


def document(**reads: dict[str, Any]) -> dict[str, Any]:
    return {"benchmark": "latest_state", "results": {"embedded": {"store": "SQLite", "closed": {"1": reads}}}}


def test_figures_that_both_results_have_are_compared() -> None:
    before = document(get=row(10.0) | {"per_second": 100.0}, removed=row(1.0))
    after = document(get=row(20.0) | {"per_second": 50.0, "p99_us": 7.0}, new=row(1.0))
    found = list(of_files(before, after))
    assert [(one.name, one.before, one.after, one.ratio) for one in found] == [
        ("embedded, closed, 1, get: p50_us", 10.0, 20.0, 2.0),
        ("embedded, closed, 1, get: per_second", 100.0, 50.0, 0.5),
    ]


def test_spread_of_two_files_comes_from_the_quartiles_of_their_rounds() -> None:
    before, after = [9.0, 10.0, 10.0, 10.0, 99.0], [18.0, 20.0, 20.0, 20.0, 500.0]
    (found,) = of_files(document(get=row(10.0, before)), document(get=row(20.0, after)))
    assert found.ratio == 2.0
    assert found.least < 2.0 < found.most
    (same,) = of_files(document(get=row(10.0, before)), document(get=row(10.0, before)))
    assert same.least < 1.0 < same.most


def test_ratio_of_several_turns_is_the_median() -> None:
    turns = [(document(get=row(10.0)), document(get=row(after))) for after in (5.0, 40.0, 20.0)]
    (found,) = of_turns(turns)
    assert (found.ratio, found.least, found.most) == (2.0, 0.5, 4.0)


def test_ratio_whose_spread_does_not_contain_one_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    compare.show([compare.Ratio("slower", 1, 2, 2.0, 1.5, 2.5), compare.Ratio("same", 1, 1, 1.0, 0.9, 1.1)])
    _, slower, same = capsys.readouterr().out.splitlines()
    assert slower.endswith("2.00 (1.50 to 2.50)  *")
    assert same.endswith("1.00 (0.90 to 1.10)")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"benchmark": "scale", "results": {}}, "has results of latest_state"),
        ({"something": "else"}, "is not a result file of a benchmark"),
        ([], "is not a result file of a benchmark"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    other: Any,
    words: str,
) -> None:
    import json

    for name, content in (("a.json", document(get=row(1.0))), ("b.json", other)):
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_result_file_has_the_facts_of_the_run(tmp_path: Path) -> None:
    known = facts("latest_state", sessions=10)
    save(tmp_path / "new" / "result.json", known, {"embedded": row(1.0)})
    found = load(tmp_path / "new" / "result.json")
    assert found == known | {"results": {"embedded": row(1.0)}}
    assert {"benchmark", "version", "commit", "date", "machine", "versions", "options"} <= found.keys()


@pytest.mark.parametrize(("benchmark", "curves"), [("latest_state", True), ("scale", False)])
def test_result_file_has_spreads_and_only_curves_that_are_plotted(tmp_path: Path, benchmark: str, curves: bool) -> None:
    measured = {"p50_us": 1.23456789, "rounds": {"p50_us": [4.0, 1.0, 3.0, 2.0]}, "curve": [[50.0, 1.23456789]]}
    save(tmp_path / "result.json", facts(benchmark), {"embedded": {"1": {"get": measured}}})
    found = load(tmp_path / "result.json")["results"]["embedded"]["1"]["get"]
    kept = {"p50_us": 1.235, "spread": {"p50_us": [1.0, 1.25, 3.75, 4.0]}}
    assert found == kept | ({"curve": [[50.0, 1.235]]} if curves else {})


def test_innermost_mappings_of_a_result_file_are_on_one_line(tmp_path: Path) -> None:
    save(tmp_path / "result.json", facts("memory"), {"sessions.get": {"idle_mb": 1.0, "peak_mb": 2.0}})
    assert '"sessions.get": {"idle_mb": 1.0, "peak_mb": 2.0}' in (tmp_path / "result.json").read_text()


def test_few_rounds_have_no_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == []
