"""The mutants fit the code as it is now; that the tests notice them is checked by ``nox -s mutants``."""

from __future__ import annotations

import ast
import re

import pytest

from tests.mutants.__main__ import Run, judged, main
from tests.mutants.mutant import MUTANTS, ROOT, SESSIONS, Mutant, Unapplicable

EACH = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def test_names_of_mutants_are_unique() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert sorted(set(names)) == sorted(names)


@EACH
def test_mutant_applies_to_its_function(mutant: Mutant) -> None:
    source = mutant.file(ROOT).read_text()
    assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))


@EACH
def test_tests_of_a_mutant_exist(mutant: Mutant) -> None:
    assert mutant.tests
    assert mutant.session in SESSIONS
    for test in mutant.tests:
        path, _, function = test.partition("::")
        assert (ROOT / path).exists(), test
        if function:
            name = function.partition("[")[0]
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test


@pytest.mark.parametrize(("session", "constant"), [("tests", "ELSEWHERE"), ("core", "CORES")])
def test_session_selects_the_tests_that_nox_selects(session: str, constant: str) -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    found = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant
    ]
    assert [ast.literal_eval(value) for value in found] == [SESSIONS[session]]


SOURCE = """
class Claims:
    def fence(self):
        return one

    def other(self):
        def fence():
            return two + two
        return one
"""


def planted(function: str, text: str) -> Mutant:
    return Mutant("m", "nothing", "package.module", function, text, "three", ("tests",))


@pytest.mark.parametrize(
    ("function", "text", "line"),
    [("Claims.fence", "one", 4), ("Claims.other", "one", 9), ("Claims.other.fence", "two + two", 8)],
)
def test_replacement_is_made_inside_the_function(function: str, text: str, line: int) -> None:
    lines = SOURCE.splitlines()
    mutated = planted(function, text).applied(SOURCE).splitlines()
    assert mutated == [*lines[: line - 1], lines[line - 1].replace(text, "three"), *lines[line:]]


@pytest.mark.parametrize(
    ("function", "text", "words"),
    [
        ("Claims.fences", "one", "0 functions"),
        ("fence", "one", "0 functions"),
        ("Claims.fence", "two", "0 times"),
        ("Claims.other", "two", "2 times"),
    ],
)
def test_mutant_that_does_not_fit_the_code_is_refused(function: str, text: str, words: str) -> None:
    with pytest.raises(Unapplicable, match=words):
        planted(function, text).applied(SOURCE)


def test_mutant_of_a_module_that_is_gone_is_refused() -> None:
    with pytest.raises(Unapplicable, match="no module"):
        planted("f", "one").file(ROOT)


@pytest.mark.parametrize(("code", "verdict"), [(0, 1), (1, 0), (None, 0), (2, 2), (3, 2), (4, 2), (5, 2)])
def test_only_a_failing_test_or_a_hang_notices_a_mutant(code: int | None, verdict: int) -> None:
    assert judged(Run(code, "tests/test_one.py::test_one", 1.0, ""))[1] == verdict


def test_unknown_mutant_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["no-such-mutant"])
    assert ended.value.code == 2
    assert "no-such-mutant" in capsys.readouterr().err


def test_list_names_every_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [mutant.name for mutant in MUTANTS]
