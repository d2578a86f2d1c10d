"""An integration with nothing but its own extra installed: ``python tests/docs/alone.py better-auth``.

Runs those snippets of its document that need nothing else.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ELSE = re.compile(r"^(from|import) (fastapi|starlette|uvicorn)", re.MULTILINE)


def main(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    alone = [snippet for snippet in snippets if not ELSE.search(snippet)]
    assert alone, f"no snippet of docs/{name}.md needs nothing but the extra"
    for snippet in alone:
        exec(compile(snippet, f"docs/{name}.md", "exec"), {"__name__": "snippet"})
    print(f"docs/{name}.md: {len(alone)} of {len(snippets)} snippets run with the extra alone")


if __name__ == "__main__":
    main(*sys.argv[1:])
