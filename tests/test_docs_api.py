"""What is public is documented: with an example, and on a page of the API.

Type aliases and constants have no docstring of their own, so they need no example.
"""

from __future__ import annotations

import pkgutil
import re
import textwrap
from collections.abc import Iterator

import pytest

from documentation import PUBLIC, ROOT, Public

DOCUMENTED = [public for public in PUBLIC if public.is_documented]

ENTRY = {
    "Args": r"\*{0,2}[a-z]\w*: ",
    "Attributes": r"[a-z]\w*: ",
    "Raises": r"(anyio\.)?[A-Z]\w*: ",
}
"""How an entry of a section of a docstring begins; what it goes on with stands further to the right."""

DIRECTIVE = re.compile(
    r"^\.\. (currentmodule|auto(?:module|class|data|exception|function)):: ([\w.]+)", re.MULTILINE
)

LINES, COLUMNS = 12, 80
"""Of an example: it is seen at a glance, and does not scroll."""


@pytest.mark.parametrize("public", DOCUMENTED, ids=str)
def test_what_is_public_shows_how_it_is_used(public: Public) -> None:
    thing = pkgutil.resolve_name(str(public))
    shown = re.search(
        r"^ *Example:\n +\.\. code-block:: python\n", thing.__doc__ or "", re.MULTILINE
    )
    assert shown, f"the docstring of {public} has no example"


@pytest.mark.parametrize("public", PUBLIC, ids=str)
def test_an_example_is_short(public: Public) -> None:
    for block in public.blocks():
        lines = block.code.splitlines()
        assert len(lines) <= LINES, block.code
        assert max(map(len, lines)) <= COLUMNS, block.code


@pytest.mark.parametrize("public", PUBLIC, ids=str)
def test_a_section_has_entries(public: Public) -> None:
    """What is not indented would be an entry of its own on the page."""
    for _, _, text in public.docstrings:
        for name, begins in ENTRY.items():
            for section in re.findall(rf"^ *{name}:\n((?:.+\n)+)", text, re.MULTILINE):
                for line in textwrap.dedent(section).splitlines():
                    assert line.startswith(" ") or re.match(begins, line), line


def described() -> Iterator[object]:
    """What stands on the pages of the API."""
    for page in sorted((ROOT / "docs" / "api").rglob("*.rst")):
        inside = ""
        for kind, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if kind == "currentmodule":
                inside = name
            elif kind == "automodule":
                inside = name
                yield pkgutil.resolve_name(name)
            else:
                yield pkgutil.resolve_name(name if "." in name else f"{inside}.{name}")


def test_what_is_public_stands_on_a_page() -> None:
    known = set(map(id, described()))
    missing = [
        str(public) for public in PUBLIC if id(pkgutil.resolve_name(str(public))) not in known
    ]
    assert not missing
