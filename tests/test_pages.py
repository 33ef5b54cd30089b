"""What can be said of the documentation without running it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documentation import PAGES, ROOT, blocks, name_of

README = ROOT / "README.rst"

pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_no_line_of_the_readme_scrolls() -> None:
    assert [line for line in README.read_text().splitlines() if len(line) > 100] == []


@pages
def test_no_line_of_code_scrolls(page: Path) -> None:
    most = 100 if page == README else 84
    shown = [line for block in blocks(page) for line in block.code.splitlines()]
    assert [line for line in shown if len(line) > most] == []


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"<([^<>\s]+\.rst)>`", README.read_text())
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pages
def test_code_is_run_or_says_why_not(page: Path) -> None:
    """By tests/integration/test_documentation.py; a reason stands by something that would be."""
    for block in blocks(page):
        assert block.language, f"{page}:{block.line} names no language"
        if block.not_run:
            assert block.kind != "other", f"{page}:{block.line}"
    directives = len(re.findall(r"^ *\.\. not run:", page.read_text(), re.MULTILINE))
    assert directives == len([block for block in blocks(page) if block.not_run])


def test_a_literal_block_is_none_of_python() -> None:
    """What follows ``::`` is not run."""
    allowed = {README, *ROOT.glob("docs/design.rst")}
    for page in PAGES:
        if page not in allowed:
            literal = re.findall(r"::\n\n( +.+)", re.sub(r"\.\. .*::.*\n", "", page.read_text()))
            assert literal == [], page
