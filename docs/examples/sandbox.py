"""Runs code for others behind HTTP: a kernel for each session, a time limit, and no more kernels than there may be.

uvicorn sandbox:app
curl -d '{"code": "6 * 7"}' localhost:8000/sessions/me
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from enchannel import KernelDied, KernelLaunchError, KernelPool, open_kernel_pool

KERNELS = 10
TIME_LIMIT = 10.0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    # Entered and left by one task, which the handlers are not.
    async with open_kernel_pool("python3", max_kernels=KERNELS, max_idle=600) as pool:
        app.state.pool = pool
        yield


async def run(request: Request) -> Response:
    pool: KernelPool = request.app.state.pool
    session = request.path_params["session"]
    try:
        code = (await request.json())["code"]
        if not isinstance(code, str):
            raise TypeError(code)
    except (ValueError, KeyError, TypeError):
        return answer({"error": 'send {"code": "..."}'}, 400)
    try:
        async with pool.lease(session) as lease:
            try:
                with anyio.fail_after(TIME_LIMIT):
                    # An error of it must not abort what somebody else sends to the same session.
                    done = await lease.channels.run(
                        code, interrupt_on_cancel=True, stop_on_error=False
                    )
            except TimeoutError:
                # It was interrupted. Code that does not end of it loses its kernel.
                if lease.channels.status == "busy":
                    await pool.discard(session)
                return answer({"error": f"not done within {TIME_LIMIT:g} s"}, 504)
    except KernelDied as died:
        return answer({"error": str(died), "output": died.output}, 502)
    except anyio.ClosedResourceError:
        return answer({"error": "the session was ended"}, 410)
    except KernelLaunchError as failed:
        return answer({"error": str(failed)}, 503)
    return answer({"status": done.status, "count": done.execution_count, "outputs": done.outputs})


def answer(content: dict[str, Any], status: int = 200) -> Response:
    # Not a JSONResponse: kernels send numbers and halves of characters that it refuses.
    return Response(json.dumps(content), status, media_type="application/json")


async def end(request: Request) -> Response:
    pool: KernelPool = request.app.state.pool
    await pool.discard(request.path_params["session"])
    return Response(status_code=204)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/sessions/{session}", run, methods=["POST"]),
        Route("/sessions/{session}", end, methods=["DELETE"]),
    ],
)
