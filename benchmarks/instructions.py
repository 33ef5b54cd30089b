"""Instructions per message and per round trip: ``python -m benchmarks instructions``.

Seconds say what a machine gives to a client at the moment; instructions say what the client asks for, and
stay the same on a machine that others use as well. The rules:

* Counted is what valgrind's callgrind counts in the client's process, with all its threads: our code, the
  interpreter, and libzmq's thread that reads the messages off the wire. Not the kernel's work, whose
  stand-in runs beside it without valgrind, and not the operating system's.
* What counts is the difference of a longer and a shorter run, each in a process of its own: what it takes
  to import, to connect and to end is the same in both and falls out.
* All messages of a flood have arrived before the first one is read. How a live flood falls into batches
  would depend on the machine after all; and so it does, by one percent or so, for round trips.
* The hash seed is fixed, for the layout of the dicts; and a run that is not counted comes first, after
  which all modules are compiled.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import zmq

from enchannel import open_kernel_channels
from enchannel._protocol.wire import Wire

from . import clients
from .clients import Client, Config
from .kernel import Driver, stand_in

WAITING = (1_000, 4_000)
"""Messages of the shorter and of the longer run."""

ROUND_TRIPS = (200, 1_200)
RUNS = 2
"""Of each length. What else may happen in a run, some time out that passed, only adds: the least counts."""

FLOODS: dict[str, Client] = {
    "bare": clients.bare,
    "iopub-trio": clients.enchannel(clients.iopub, "trio"),
    "iopub-asyncio": clients.enchannel(clients.iopub, "asyncio"),
    "main-trio": clients.enchannel(clients.main, "trio"),
    "execution-trio": clients.enchannel(clients.execution, "trio"),
    "jupyter_client": clients.jupyter_client,
}


def bare_trips(config: Config, count: int, *, reads_iopub: bool) -> None:
    """A blocking loop; where it reads iopub as well, it knows what comes there."""
    wire = Wire(config["key"])
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as shell,
        clients.subscriber(context, config) as iopub,
    ):
        shell.connect(f"tcp://127.0.0.1:{config['shell_port']}")
        wire.decode(iopub.recv_multipart())  # the welcome
        if not reads_iopub:
            iopub.close()
        for _ in range(count):
            msg_id = clients.send_bare(wire, shell)
            assert wire.decode(shell.recv_multipart()).is_child_of(msg_id)
            if reads_iopub:
                for _ in ("busy", "idle"):
                    assert wire.decode(iopub.recv_multipart()).is_child_of(msg_id)


def our_trips(config: Config, count: int, *, backend: str) -> None:
    async def main() -> None:
        async with open_kernel_channels(None, config) as ch:
            for _ in range(count):
                await ch.request("kernel_info_request")

    anyio.run(main, backend=backend)


TRIPS: dict[str, Callable[[Config, int], None]] = {
    "trip-bare": lambda config, count: bare_trips(config, count, reads_iopub=True),
    "trip-bare-shell-alone": lambda config, count: bare_trips(config, count, reads_iopub=False),
    "trip-trio": lambda config, count: our_trips(config, count, backend="trio"),
    "trip-asyncio": lambda config, count: our_trips(config, count, backend="asyncio"),
}

SUBJECTS = (*FLOODS, *TRIPS)


def instructions(chosen: Iterable[str] | None = None) -> None:
    """Tables of the chosen subjects, by default of all, beside the bare loops."""
    chosen = set(chosen or SUBJECTS)
    if not shutil.which("valgrind"):
        print("\nInstructions: not counted, for valgrind is not installed")
        return
    if not importlib.util.find_spec("jupyter_client"):
        chosen.discard("jupyter_client")
    low, high = WAITING
    what = f"a message, {high - low:,} of them waiting in the socket"
    table(what, [name for name in FLOODS if name in chosen], "bare", WAITING)
    what = "a kernel_info_request and its reply, with its statuses on iopub"
    table(what, [name for name in TRIPS if name in chosen], "trip-bare", ROUND_TRIPS)


def table(what: str, names: list[str], bare: str, lengths: tuple[int, int]) -> None:
    if not names:
        return
    print(f"\nInstructions for {what}: and how many times a bare blocking loop's")
    reference = 0.0
    for name in dict.fromkeys([bare, *names]):
        run(name, 1)
        low, high = (
            min(run(name, length, counting=True) for _ in range(RUNS)) for length in lengths
        )
        each = (high - low) / (lengths[1] - lengths[0])
        reference = reference or each
        print(f"  {name:22} {each:9,.0f} {each / reference:6.2f} x", flush=True)


def run(name: str, length: int, *, counting: bool = False) -> int:
    """Runs a subject in a process of its own; the instructions that it took, where they are counted."""
    child = [sys.executable, "-m", "benchmarks.instructions", name, str(length)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONHASHSEED"] = "0"
    with tempfile.TemporaryDirectory() as directory, stand_in() as (config, _):
        out = Path(directory) / "callgrind.out"
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
        subprocess.run(
            [*valgrind, *child] if counting else child,
            input=json.dumps(config).encode(),
            env=environment,
            check=True,
        )
        if not counting:
            return 0
        totals = re.search(r"^totals: (\d+)", out.read_text(), re.MULTILINE)
    assert totals is not None
    return int(totals[1])


def main() -> None:
    """The child: one subject, once."""
    name, length = sys.argv[1], int(sys.argv[2])
    config = json.load(sys.stdin)
    if name in TRIPS:
        TRIPS[name](config, length)
        return
    driver = Driver(config)
    FLOODS[name](config, driver, length, True)
    driver.context.destroy(linger=0)


if __name__ == "__main__":
    main()
