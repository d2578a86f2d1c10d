"""The README is one page: short, with the two commands, a history that is printed, and small examples."""

from __future__ import annotations

import pytest

from tests.docs.pages import README, blocks, snippets

COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install '.[all]' && .venv/bin/allsource-auth demo",
    "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s tests",
]
WORDS = 900
TEXT = README.read_text(encoding="utf-8")


def test_readme_has_fewer_than_900_words() -> None:
    assert len(TEXT.split()) < WORDS


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_on_a_line_of_its_own(command: str) -> None:
    assert TEXT.splitlines().count(command) == 1


def test_first_snippet_prints_a_history_in_at_most_25_lines() -> None:
    history, *_ = snippets(README)
    assert len(history.text.splitlines()) <= 25
    assert history.output is not None
    assert len(history.output.splitlines()) >= 3


def test_four_ways_to_use_it_take_at_most_ten_lines_each() -> None:
    _, *cards = snippets(README)
    assert len(cards) == 4
    assert all(len(card.text.splitlines()) <= 10 for card in cards), [card.place for card in cards]


def test_only_the_installation_of_a_checkout_is_not_run() -> None:
    assert [block.text.split()[:2] for block in blocks(README) if "manual" in block.words] == [["pip", "install"]]
