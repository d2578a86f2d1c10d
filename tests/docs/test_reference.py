"""The reference names everything that is public: names, errors, options, environment variables."""

from __future__ import annotations

import inspect
import re

import pytest

import allsource_auth
from allsource_auth import AllsourceAuthAdapter, config, errors
from tests.docs.pages import ROOT

REFERENCE = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")}
DOCUMENTED = re.findall(r"^\.\. auto\w+:: allsource_auth\.(\w+)$", "\n".join(REFERENCE.values()), re.MULTILINE)
NOT_OBJECTS = {"UNSET", "__version__"}
"""What is described in words."""


def test_every_public_name_has_one_entry() -> None:
    assert sorted(DOCUMENTED) == sorted(set(allsource_auth.__all__) - NOT_OBJECTS)
    assert all(f"`allsource_auth.{name}`" in REFERENCE["adapter"] for name in NOT_OBJECTS)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree(name: str) -> None:
    tree = REFERENCE["errors"].partition("```text")[2].partition("```")[0]
    assert re.search(rf"^[ │├└─]*{name}\b", tree, re.MULTILINE)


def test_every_repository_has_an_entry() -> None:
    attributes = vars(AllsourceAuthAdapter.embedded()).values()
    classes = {type(attribute) for attribute in attributes if hasattr(attribute, "iter_history")}
    entries = re.findall(
        r"^\.\. autoclass:: allsource_auth\.repositories\.\w+\.(\w+)$", REFERENCE["repositories"], re.MULTILINE
    )
    assert sorted(entries) == sorted(found.__name__ for found in classes)


@pytest.mark.parametrize("constructor", ["__init__", "embedded", "with_store"])
def test_every_option_is_in_the_table_of_its_constructor(constructor: str) -> None:
    name = "" if constructor == "__init__" else f".{constructor}"
    section = REFERENCE["options"].partition(f"## AllsourceAuthAdapter{name}(")[2].partition("\n## ")[0]
    options = set(inspect.signature(getattr(AllsourceAuthAdapter, constructor)).parameters) - {"self"}
    if "options" in options:
        options = options - {"options"} | set(config.ConnectionOptions.__annotations__)
    assert set(re.findall(r"^\| `(\w+)` ", section, re.MULTILINE)) == options


def test_every_environment_variable_is_in_the_table() -> None:
    section = REFERENCE["options"].partition("from_env()")[2]
    variables = {config.CORE_URL, config.QUERY_URL, config.API_KEY, config.EMBEDDED_PATH, config.TENANT}
    assert set(re.findall(r"^\| `(\w+)` ", section, re.MULTILINE)) == variables
