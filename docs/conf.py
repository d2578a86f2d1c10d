"""The documentation site: ``nox -s docs`` builds it into docs/_build/html. Nothing is downloaded."""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

import allsource_auth

project = "allsource_auth"
version = release = allsource_auth.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = "allsource_auth"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
pygments_style, pygments_dark_style = "friendly", "github-dark"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
default_role = "py:obj"
nitpicky = True
smartquotes_action = "D"  # dashes, no quotes

PACKAGE = Path(allsource_auth.__file__).parent
TIME = "Annotated[datetime, Meta(tz=True)]"


def _help(*arguments: str) -> str:
    program = "from allsource_auth.cli import main; raise SystemExit(main())"
    environment = os.environ | {"COLUMNS": "2000", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-c", program, *arguments, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def _as_markdown(text: str) -> Iterator[str]:
    """The help of a command: its usage as code, its boxes as definition lists, the rest as paragraphs."""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("Usage: "):
            yield f"```text\n{line.removeprefix('Usage: ')}\n```\n"
        elif title := re.match(r"╭─ (\w+) ─", line):
            yield f"\n**{title[1]}**\n"
        elif row := re.match(r"│ (\S.*?)(?:  +(\S.*?))? *│$", line):
            yield f"\n`{row[1]}`\n: {_escaped(row[2] or '')}\n"
        elif not line.startswith("╰"):
            yield f"{_escaped(line)}\n"


def _escaped(text: str) -> str:
    return re.sub(r"(--[a-z][a-z-]*)", r"`\1`", re.sub(r"([\\`*_<>\[\]$])", r"\\\1", text))


def add_command_help(app: Any, document: str, source: list[str]) -> None:
    """Add what each command says with ``--help`` to the page about the command line."""
    if document == "reference/command-line":
        parts = [source[0]]
        for command in re.findall(r"^│ ([a-z]+)  ", _help(), re.MULTILINE):
            parts += [f"\n## allsource-auth {command}\n", *_as_markdown(_help(command))]
        source[0] = "\n".join(parts)


def _names() -> set[str]:
    """Every name that the package defines."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


NAMES = _names()


def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Find what a docstring or an annotation names by another path than the documented one.

    Names without an entry in the documentation are shown without a link: other names of the package, builtins, and names of
    other packages. Names that do not exist anywhere are left to Sphinx, which warns.
    """
    if node.get("refdomain") != "py":
        return None
    python, target = env.domains.python_domain, node["reftarget"]
    last = target.rpartition(".")[2]
    path = [f"allsource_auth.{last}"] if last in allsource_auth.__all__ else []
    found = [name for name in path if name in python.objects] or [
        name for name, _ in python.find_obj(env, None, None, target, None, 1)
    ]
    if len(found) == 1:
        place = node.get("refdoc", env.docname)
        return python.resolve_xref(env, place, app.builder, "obj", found[0], node, text)
    if node["reftype"] == "obj":
        return text if last in NAMES or _is_known_elsewhere(target) else None
    ours = target.startswith("allsource_auth.") and node.get("refexplicit")
    return None if ours else text


def _is_known_elsewhere(target: str) -> bool:
    package = target.partition(".")[0]
    return hasattr(builtins, target) or (package != "allsource_auth" and find_spec(package) is not None)


def shorten_times(app: Any, doctree: Any) -> None:
    """Show the type of times as ``datetime``, without what msgspec needs to know of it."""
    for annotation in doctree.findall(addnodes.desc_annotation):
        text = annotation.astext()
        if TIME in text:
            annotation.children = [nodes.Text(text.replace(TIME, "datetime"))]


def setup(app: Any) -> None:
    app.connect("source-read", add_command_help)
    app.connect("doctree-read", shorten_times)
    app.connect("missing-reference", resolve)
