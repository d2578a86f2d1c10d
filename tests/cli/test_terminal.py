"""Output to terminals and to other streams."""

from __future__ import annotations

from io import StringIO

import pytest

from allsource_auth.cli.terminal import bar, check_marks, console


class Terminal(StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class Ascii(StringIO):
    encoding = "ascii"


class Unicode(StringIO):
    encoding = "utf-8"


def test_colours_need_a_terminal_and_no_color_disables_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, coloured in ((StringIO(), False), (Terminal(), True)):
        console(stream).print("text", style="red")
        assert ("\x1b[31m" in stream.getvalue()) is coloured
    monkeypatch.setenv("NO_COLOR", "1")
    console(terminal := Terminal()).print("text", style="red")
    assert "\x1b[31m" not in terminal.getvalue()


def test_check_marks_are_words_if_the_encoding_lacks_the_symbols() -> None:
    assert check_marks(Ascii()) == ("ok", "FAILED")


def test_bar_has_the_length_of_its_fraction_and_is_never_empty_above_zero() -> None:
    assert [bar(Unicode(), fraction, 4) for fraction in (0, 1e-9, 0.5, 17 / 32, 1)] == ["", "▏", "██", "██▏", "████"]
    assert [bar(Ascii(), fraction, 4) for fraction in (0, 1e-9, 0.5, 1)] == ["", "#", "##", "####"]
