"""Names of a package that are imported by who uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["importer"]


def importer(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of `package`, which finds each name of `modules` in the module there, or is that module.

    Not for type checkers, which would take any name for one that there is.
    """

    def find(name: str) -> object:
        if name in modules:
            from importlib import import_module

            module = import_module(f".{modules[name]}", package)
            return module if name == modules[name] else getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
