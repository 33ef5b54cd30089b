"""The rooms of the package, and who may import whom.

* Every module belongs to one room, and imports from its own or from those below it only.
* No module imports itself by way of others.
* The protocol and the table of a connection's states know of no sockets and no event loop, whatever they
  import.
* A module can be read in one go.

An import is one wherever it stands: in a function, and for type checkers alone. All is read from the source;
nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "enchannel"

ROOMS = (
    ("_protocol",),
    ("messages", "operators", "outputs"),
    ("_log", "_exceptions", "_groups", "_bell", "_trio", "_later", "_signals"),
    ("_transports",),
    ("_core",),
    ("_conversations",),
    ("_streams", "_statistics", "_channels", "_open_channels"),
    ("_kernels",),
    ("testing", "_cli", "__init__", "__main__"),
)
"""From the bottom."""

INPUT_AND_OUTPUT = {"zmq", "anyio", "trio", "asyncio"}

LONGEST = 450
"""Lines."""

Graph = Mapping[str, Iterable[str]]


def find_modules() -> dict[str, Path]:
    """Each module's full name, and its file; of a package, its ``__init__``."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    found = {}
    for path in home.rglob("*.py"):
        parts = (PACKAGE, *path.relative_to(home).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str, package: str, modules: Iterable[str]) -> Iterator[str]:
    """What `source` imports, by full names; `package` is what its relative imports start from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in modules else base


def reached(graph: Graph, start: str) -> set[str]:
    """`start`, and everything that it imports in some way."""
    seen, waiting = {start}, [start]
    while waiting:
        new = set(graph.get(waiting.pop(), ())) - seen
        seen |= new
        waiting += new
    return seen


def circles(graph: Graph) -> list[str]:
    """Each import that is part of a circle."""
    return sorted(
        f"{name} imports {other}"
        for name in graph
        for other in graph[name]
        if name in reached(graph, other)
    )


def packages_of(module: str) -> Iterator[str]:
    """Those that are imported with `module`, but for the whole."""
    parts = module.split(".")
    for end in range(2, len(parts)):
        yield ".".join(parts[:end])


MODULES = find_modules()


@cache
def imports() -> dict[str, set[str]]:
    return {
        name: set(
            imports_of(
                path.read_text(encoding="utf-8"),
                name if path.name == "__init__.py" else name.rpartition(".")[0],
                MODULES,
            )
        )
        for name, path in MODULES.items()
    }


def room_of(module: str) -> str:
    return module.split(".")[1] if module != PACKAGE else "__init__"


FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def test_every_module_has_a_room_and_no_room_is_empty() -> None:
    assert sorted({room_of(module) for module in MODULES}) == sorted(FLOORS)


def test_nobody_imports_from_a_room_above() -> None:
    upwards = sorted(
        f"{name} imports {other}"
        for name, imported in imports().items()
        for other in imported & MODULES.keys()
        if FLOORS[room_of(other)] > FLOORS[room_of(name)]
    )
    assert not upwards, "\n".join(upwards)


def test_nobody_imports_himself_by_way_of_others() -> None:
    inside = {name: imported & MODULES.keys() for name, imported in imports().items()}
    found = circles(inside)
    assert not found, "\n".join(found)


PURE = [
    *sorted(name for name in MODULES if room_of(name) == "_protocol"),
    "enchannel._core.life",
]


@pytest.mark.parametrize("module", PURE)
def test_neither_sockets_nor_an_event_loop_are_behind(module: str) -> None:
    assert module in MODULES
    whole = {
        name: imported.union(*map(packages_of, imported & MODULES.keys()))
        for name, imported in imports().items()
        if name != PACKAGE
    }
    found = {
        f"{name} imports {other}"
        for start in (module, *packages_of(module))
        for name in reached(whole, start) & whole.keys()
        for other in whole[name]
        if other.split(".")[0] in INPUT_AND_OUTPUT
    }
    assert not found, "\n".join(sorted(found))


def test_no_module_is_too_long_to_read() -> None:
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()
    }
    long = sorted(f"{name}: {length}" for name, length in lengths.items() if length > LONGEST)
    assert not long, "\n".join(long)


# That the checks would see it.


def test_an_import_is_found_wherever_it_stands() -> None:
    source = """
import os, anyio.abc as abc
from enchannel import Message
from . import sibling, Name
from .sibling import Other
from .. import Name as name
if TYPE_CHECKING:
    from .._channels import KernelChannels
def function():
    from ..messages import *
    class Inner:
        import zmq
"""
    modules = {"enchannel", "enchannel._core.sibling", "enchannel._channels"}
    assert sorted(set(imports_of(source, "enchannel._core", modules))) == [
        *("anyio.abc", "enchannel", "enchannel._channels", "enchannel._core"),
        *("enchannel._core.sibling", "enchannel.messages", "os", "zmq"),
    ]


def test_a_circle_is_found_and_what_leads_to_it_is_none() -> None:
    graph = {"a": ["b"], "b": ["c", "d"], "c": ["b"], "d": [], "e": ["e"]}
    assert circles(graph) == ["b imports c", "c imports b", "e imports e"]


def test_the_packages_around_a_module_count_but_for_the_whole() -> None:
    assert list(packages_of("enchannel.a.b")) == ["enchannel.a"]
    assert list(packages_of("enchannel.a")) == []
