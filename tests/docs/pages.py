"""The pages of the documentation (README.md and docs/), and the fenced blocks on them that can be run.

The words after the language of a block say how it is run:

* ``python``: a program of its own. ``python NAME.py``: a part of the file NAME.py, which the other programs and the commands
  of the page find in their folder; the parts of one file are joined in order.
* ``sh``: one command in each line, run in an empty folder; with ``checkout``, and in the README, in the checkout.
  ``background``: a server, which runs until the next such block. ``core``: needs a real Core. ``manual``: is not run, because
  it needs more than a checkout (a registry, a build of Core, another machine).
* ``text output``: what the block before it prints. Numbers may differ.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "docs" / "_build"
README = ROOT / "README.md"
PAGES = [README, *sorted(page for page in (ROOT / "docs").rglob("*.md") if BUILT not in page.parents)]

FENCE = re.compile(
    r"^(?P<margin> *)```(?P<language>[a-z]+)(?P<words>[^\n]*)\n(?P<text>.*?)^(?P=margin)```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """A fenced block: where it begins, its language, the words after that, and its text."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str
    output: str | None = None
    """What it prints, if the page says so."""

    @property
    def file(self) -> str | None:
        """The file that the block is a part of."""
        return next((word for word in self.words if word.endswith(".py")), None)

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. An output is a part of the block that prints it."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        block = Block(page, line, match["language"], tuple(match["words"].split()), dedent(match["text"]))
        if block.language == "text" and "output" in block.words:
            assert found, f"{block.place}: there is no block that prints this"
            found[-1] = found[-1]._replace(output=block.text)
        else:
            found.append(block)
    return found


def snippets(page: Path) -> list[Block]:
    """The Python programs of a page, without the parts of files."""
    return [block for block in blocks(page) if block.language == "python" and block.file is None]


def files(page: Path) -> dict[str, str]:
    """The files whose parts are on a page."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "python" and block.file is not None:
            found[block.file] = found.get(block.file, "") + block.text
    return found


def write_files(page: Path, folder: Path) -> None:
    for name, text in files(page).items():
        (folder / name).write_text(text, encoding="utf-8")


def imported(program: str) -> set[str]:
    """The packages that a program imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def comparable(output: str) -> list[str]:
    """The lines of an output, without what differs from run to run: numbers, and the width of the space around them."""
    return [re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip() for line in output.strip().splitlines()]
