"""Outputs as a notebook shows them, out of what a kernel publishes.

Executions have them already (:attr:`enchannel.Execution.outputs`); this is for who has the
messages: a listener on iopub, a recorded session, a runner that puts them into a notebook.

Example:
    .. code-block:: python

        async with ch.subscribe("iopub") as listener:
            sent = await ch.shell.send(messages.execute_request("6 * 7"))
            area = OutputArea(ch.displays)
            async for channel, msg in operators.children_of(listener, sent):
                area.apply(msg)
                if msg.content.get("execution_state") == "idle":
                    break
        print(area.text)  # 42
"""

from __future__ import annotations

from ._protocol.output_text import bundle_text, plain_text, text_of_outputs
from ._protocol.output_widgets import OutputWidgets
from ._protocol.outputs import Displays, Output, OutputArea, output_of

__all__ = [
    "Displays",
    "Output",
    "OutputArea",
    "OutputWidgets",
    "bundle_text",
    "output_of",
    "plain_text",
    "text_of_outputs",
]
