"""A fake kernel behind a fake server."""

from __future__ import annotations

from .. import messages
from .._protocol.message import new_id, prepare
from ._fake_kernel import FakeKernel

__all__ = ["ServedKernel"]


class ServedKernel(FakeKernel):
    """One whose server asks each life of it what it is.

    What the kernel publishes of that is all that tells clients of a restart: behind a server no connection goes.
    """

    async def restart(self) -> None:
        """See :meth:`FakeKernel.restart`; it says first that it goes, as ipykernel does."""
        if not (self._dead or self._silent):
            self.publish("shutdown_reply", {"status": "ok", "restart": True})
        await super().restart()

    def _begin(self, *, again: bool) -> None:
        super()._begin(again=again)
        if again:
            asked = prepare(messages.kernel_info_request(), session=new_id(), username="server")
            self.publish("status", {"execution_state": "starting"})
            for state in ("busy", "idle"):
                self.publish("status", {"execution_state": state}, parent=asked)
