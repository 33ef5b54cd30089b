"""Real servers of kernels, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import anyio
import pytest

from enchannel import ServerError, open_server
from raw_kernel import PORTS

TOKEN = "the-token-of-the-tests"

JUPYTER_SERVER = (
    "jupyter-server", "--allow-root", "--no-browser", "--ip=127.0.0.1", "--port={port}",
    "--ServerApp.port_retries=0", "--IdentityProvider.token={token}",
    # Deaths count as consecutive for as long as a test takes, however slow the machine is.
    "--KernelRestarter.stable_start_time=600",
)  # fmt: skip
KERNEL_GATEWAY = (
    "jupyter-kernelgateway", "--KernelGatewayApp.ip=127.0.0.1", "--KernelGatewayApp.port={port}",
    "--KernelGatewayApp.port_retries=0", "--KernelGatewayApp.auth_token={token}",
)  # fmt: skip
ENTERPRISE_GATEWAY = (
    "jupyter-enterprisegateway", "--EnterpriseGatewayApp.ip=127.0.0.1",
    "--EnterpriseGatewayApp.port={port}", "--EnterpriseGatewayApp.port_retries=0",
    "--EnterpriseGatewayApp.auth_token={token}",
)  # fmt: skip


class Running:
    """A server in a process of its own."""

    def __init__(self, *command: str, home: str = "", env: Mapping[str, str] | None = None) -> None:
        # Not one that the system may give to somebody else before the server has it.
        with contextlib.ExitStack() as stack:
            for port in random.sample(PORTS, len(PORTS)):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                    self.port = port
                    break
        self.url = f"http://127.0.0.1:{self.port}"
        program, *options = (each.format(port=self.port, token=TOKEN) for each in command)
        # The program of this environment, whatever the path says.
        found = shutil.which(program, path=home or str(Path(sys.executable).parent))
        if found is None:
            pytest.skip(f"there is no {program}")
        self.process = subprocess.Popen(
            [found, *options],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def wait_ready(self) -> None:
        with anyio.fail_after(60):
            while True:
                with contextlib.suppress(ServerError):
                    async with open_server(self.url, token=TOKEN, connect_timeout=2):
                        return
                assert self.process.poll() is None, "the server has exited"
                await anyio.sleep(0.1)

    def stop(self) -> None:
        """Ends it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(
    *command: str, home: str = "", env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    server = Running(*command, home=home, env=env)
    try:
        yield server
    finally:
        server.stop()
