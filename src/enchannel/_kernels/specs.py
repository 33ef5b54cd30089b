"""Kernelspecs: which kernels are installed, and how each is started.

Kernels are looked for on the Jupyter path, where what comes first counts, and by names without case, as
jupyter_client does.

Source: "Kernel specs" in "Making kernels for Jupyter", jupyter_client.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from .._exceptions import KernelLaunchError, LocalProtocolError
from .._log import logger
from .._protocol.arguments import check_env, is_system_text, is_text

__all__ = ["KernelSpec", "check_arguments", "check_spec"]

LOCAL = "local-provisioner"
"""The provisioner that runs a kernel's command on this machine, as we do."""

NATIVE = "python3"
"""What the kernel of our own Python is called."""

# Kernels that listen on ipc, by the program or the module that their command runs; the others exit, or never answer.
_SPEAKS_IPC = re.compile(
    r"(ipykernel|ipykernel_launcher|async[-_]kernel)(\.py)?|IRkernel::main\b.*"
)

INTERRUPT_MODES = ("signal", "message")


@attrs.frozen
class KernelSpec:
    """What a ``kernel.json`` says, and where it is: how a kernel is started.

    By :meth:`find`, :meth:`installed` and :meth:`from_directory`; or made, for a kernel that is
    installed nowhere. :func:`open_kernel` takes one.

    Source: "Kernel specs" in "Making kernels for Jupyter".

    Example:
        .. code-block:: python

            spec = KernelSpec.find("python3")
            print(spec.language, spec.interrupt_mode)  # python signal
            async with open_kernel(spec) as kernel:
                print(kernel.spec.name)  # python3
    """

    name: str
    """What it is called: the name of its directory."""
    argv: Sequence[str]
    """Its command, in which ``{connection_file}`` and ``{resource_dir}`` are filled in."""
    resource_dir: Path
    """The directory that it is in, with its icons."""
    display_name: str = ""
    """What users are shown."""
    language: str = ""
    """The language of its kernel."""
    interrupt_mode: str = "signal"
    """``"signal"`` (SIGINT) or ``"message"`` (an interrupt_request on control)."""
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Variables for its environment, in which ``${NAME}`` stands for one of ours."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """What else it says, of its debugger for example."""

    @classmethod
    def find(cls, name: str) -> KernelSpec:
        """The kernelspec called `name` that comes first on the Jupyter path.

        Where none is called ``python3``, that is the ipykernel of our own environment, and where none
        is called ``python``, that is ``python3``, as for jupyter_client.

        Args:
            name: Its name, in whatever case.

        Raises:
            KernelLaunchError: There is none; the message names those that there are.
        """
        specs = dict(_directories())
        # jupyter_client takes it for the same.
        if name.lower() == "python" and "python" not in specs:
            name = NATIVE
        directory = specs.get(name.lower())
        own = _own_ipykernel() if directory is None and name.lower() == NATIVE else None
        if own is not None:
            return own
        if directory is None:
            known = ", ".join(sorted(specs)) or "none at all"
            hint = ". For Python: pip install ipykernel" if NATIVE not in specs else ""
            raise KernelLaunchError(
                f"no kernelspec {name!r} on the Jupyter path; there is {known}{hint}"
            )
        return cls.from_directory(directory)

    @classmethod
    def installed(cls) -> list[KernelSpec]:
        """Every kernelspec that can be found, by name; those that are broken are logged and left
        out.

        Raises:
            KernelLaunchError: The Jupyter path cannot be found out, or jupyter_core is not
                installed.
        """
        specs = []
        directories = dict(_directories())
        for _, directory in sorted(directories.items()):
            try:
                specs.append(cls.from_directory(directory))
            except KernelLaunchError as error:
                logger().warning("%s", error)
        own = None if NATIVE in directories else _own_ipykernel()
        return specs if own is None else sorted([*specs, own], key=lambda spec: spec.name.lower())

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> KernelSpec:
        """The kernelspec in `directory`, wherever that is; it has the directory's name.

        Args:
            directory: Its path.

        Raises:
            KernelLaunchError: There is no ``kernel.json``, or it is broken.
        """
        # Or another directory of the kernel's, or of ours later, would make it another one.
        directory = Path(directory).absolute()
        path = directory / "kernel.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            spec = cls(
                name=directory.name,
                argv=_with_numbers(data["argv"]),
                resource_dir=directory,
                display_name=str(data.get("display_name") or ""),
                language=str(data.get("language") or ""),
                interrupt_mode=data.get("interrupt_mode") or "signal",
                env={str(key): str(value) for key, value in (data.get("env") or {}).items()},
                metadata={**(data.get("metadata") or {})},
            )
        except _UNREADABLE as error:
            said = f"{path} is no kernelspec: {error!r}"
            raise KernelLaunchError(said, reason="broken kernelspec") from error
        check_spec(spec, f"{path} is no kernelspec")
        return spec

    @property
    def speaks_ipc(self) -> bool:
        """Whether it is known to listen on ipc."""
        if sys.platform == "win32":
            return False
        # Not what stands in a path, or behind another option.
        before = ("", *self.argv)
        run = [
            each
            for option, each in zip(before, self.argv, strict=False)
            if option in ("-m", "-e", "-c")
        ]
        named = [*(Path(each).name for each in self.argv[:2]), *run]
        return any(_SPEAKS_IPC.fullmatch(each) for each in named)

    @property
    def speaks_curve(self) -> bool:
        """Whether it declares that it can encrypt (``supported_encryption``)."""
        declared = self.metadata.get("supported_encryption") or ()
        several = [declared] if isinstance(declared, str) else declared
        return isinstance(several, list) and "curve" in [
            str(one).strip().lower() for one in several
        ]

    @property
    def provisioner(self) -> str:
        """Who starts it; ``"local-provisioner"`` where its command is run on this machine."""
        stanza, older = self.metadata.get("kernel_provisioner"), self.metadata.get("process_proxy")
        name = stanza.get("provisioner_name") if isinstance(stanza, dict) else None
        proxy = older.get("class_name") if isinstance(older, dict) else None
        if isinstance(proxy, str) and not proxy.endswith("LocalProcessProxy"):
            # Of an Enterprise Gateway.
            name = name or proxy
        default = os.environ.get("JUPYTER_DEFAULT_PROVISIONER_NAME")
        return name if isinstance(name, str) and name else default or LOCAL

    def command(self, connection_file: Path) -> list[str]:
        """The argv with its placeholders filled.

        Args:
            connection_file: The path of the kernel's.
        """
        values = {
            "connection_file": str(connection_file),
            "resource_dir": str(self.resource_dir),
            "prefix": sys.prefix,
        }
        filled = [
            re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), argument)
            for argument in self.argv
        ]
        # A kernelspec of this environment's ipykernel says just "python"; which one, PATH must not decide. One that asks
        # for another version means another one.
        if filled[0] in _OUR_PYTHON:
            filled[0] = sys.executable
        return filled

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The variables of a kernel's process: ours, its own, and those in `env`."""
        own = {
            name: string.Template(value).safe_substitute(os.environ)
            for name, value in self.env.items()
        }
        # Of ours it would make another Python than that of its command.
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONEXECUTABLE"}
        # With the last a kernel notices when we are gone.
        return {**ours, **own, "JPY_PARENT_PID": str(os.getpid()), **env}


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _with_numbers(argv: Any) -> Any:
    """An argv as ``kernel.json`` says it, where numbers stand for texts."""
    if not isinstance(argv, list):
        return argv
    return [str(each) if isinstance(each, (int, float)) else each for each in argv]


def check_spec(spec: KernelSpec, said: str) -> None:
    """Raises ``KernelLaunchError`` where no kernel can be started as `spec` says; its message begins with `said`."""
    try:
        # Connection files are UTF-8, and have it.
        if not is_text(spec.name) or "\0" in spec.name:
            raise LocalProtocolError(f"name is a text, without NUL characters, not {spec.name!r}")
        check_arguments("argv", spec.argv)
        if not spec.argv or not spec.argv[0]:
            raise LocalProtocolError("argv is empty")
        if not is_system_text(str(spec.resource_dir)):
            raise LocalProtocolError(
                f"resource_dir is the path of a directory, not {spec.resource_dir!r}"
            )
        if spec.interrupt_mode not in INTERRUPT_MODES:
            raise LocalProtocolError(
                f"interrupt_mode is 'signal' or 'message', not {spec.interrupt_mode!r}"
            )
        for what, named in (("env", spec.env), ("metadata", spec.metadata)):
            if not isinstance(named, Mapping):
                raise LocalProtocolError(f"{what} is a mapping, not {type(named).__name__}")
        check_env(spec.env, is_system_text)
    except LocalProtocolError as error:
        raise KernelLaunchError(f"{said}: {error}", reason="broken kernelspec") from None


def check_arguments(name: str, arguments: object) -> None:
    """Raises ``LocalProtocolError`` where a program cannot be given `arguments`, which are called `name`."""
    are_several = isinstance(arguments, Sequence) and all(map(is_system_text, arguments))
    if isinstance(arguments, str) or not are_several:
        raise LocalProtocolError(
            f"{name} is a sequence of texts, without NUL characters, one for each argument"
        )


_OUR_PYTHON = (
    "python",
    f"python{sys.version_info[0]}",
    ".".join(("python3", str(sys.version_info[1]))),
)


def _own_ipykernel() -> KernelSpec | None:
    """The ipykernel of our own environment, where it has one. Not imported: that takes a quarter of a second."""
    found = importlib.util.find_spec("ipykernel")
    if found is None or found.origin is None:
        return None
    return KernelSpec(
        name=NATIVE,
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        resource_dir=Path(found.origin).with_name("resources"),
        display_name="Python 3 (ipykernel)",
        language="python",
        metadata={"debugger": True},
    )


def _directories() -> Iterator[tuple[str, Path]]:
    """The name and directory of every kernelspec, those that come first on the path last."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError as error:
        raise KernelLaunchError(
            'finding kernels needs jupyter_core: pip install "enchannel[kernel]"'
        ) from error
    try:
        roots = jupyter_path("kernels")
    except (OSError, RuntimeError, KeyError) as error:
        said = f"the Jupyter path cannot be found out: {error}; JUPYTER_DATA_DIR says where its user's part is"
        raise KernelLaunchError(said, reason="system") from error
    for root in reversed(roots):
        for directory in _entries(root):
            if _has_spec(directory):
                yield directory.name.lower(), directory


def _entries(root: str) -> Sequence[Path]:
    """What is in `root`; nothing where it is not there, or may not be looked at."""
    try:
        return sorted(Path(root, name) for name in os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError) as error:
        logger().warning("%s is on the Jupyter path, and left out: %s", root, error)
        return ()


def _has_spec(directory: Path) -> bool:
    try:
        return (directory / "kernel.json").is_file()
    except OSError as error:
        logger().warning("%s is on the Jupyter path, and left out: %s", directory, error)
        return False
