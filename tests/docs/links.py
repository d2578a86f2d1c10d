"""Check the links of the documentation: ``python tests/docs/links.py docs/_build/html``.

Every link in the built site to another page, to a place on a page or to a file must lead somewhere. So must every relative
link of the Markdown files in the repository. Links to other sites are not followed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!`)\]\(([^()\s]+)\)")


class Page(HTMLParser):
    """The links of a page, and the places on it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.places.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def broken_in_site(site: Path) -> Iterator[str]:
    """What does not lead anywhere in the built site."""
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    assert pages, f"there are no pages in {site}"
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = pages.get(target)
            if not target.exists() or (there and unquote(parts.fragment) not in there.places):
                yield f"{file.relative_to(site.resolve())}: {link}"


def broken_in_markdown(file: Path) -> Iterator[str]:
    """What does not lead anywhere in a Markdown file of the repository."""
    for link in LINK.findall(file.read_text(encoding="utf-8")):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
            yield f"{file.relative_to(ROOT)}: {link}"


def anchors(file: Path) -> set[str]:
    """The anchors of the headings of a Markdown file."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def main(*sites: str) -> int:
    files = [*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), ROOT / "benchmarks" / "README.md"]
    files += [file for file in (ROOT / "docs").rglob("*.md") if "_build" not in file.parts]
    broken = [problem for file in files for problem in broken_in_markdown(file)]
    for site in sites:
        broken += broken_in_site(Path(site))
    for problem in broken:
        print(f"leads nowhere: {problem}")
    print(f"{len(files)} Markdown files checked, {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
