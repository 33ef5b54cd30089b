"""The runner beside nbclient, on the same notebooks."""

from __future__ import annotations

import copy
import sys
from typing import Any

import anyio
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebook import run_notebook

from enchannel import ReplyError
from enchannel.outputs import plain_text

pytestmark = pytest.mark.anyio

STREAMS = [
    "import sys\nfor n in range(3): print(n, flush=True)\nprint('e', file=sys.stderr)\n1",
    "print('no end', end=''); print(' here')",
    "None",
    "from IPython.display import clear_output\nprint('gone'); clear_output(); print('stays')",
    "print('gone'); clear_output(wait=True); print('stays')",
]
PROGRESS = ["for n in range(100): print('\\r%d %%' % n, end='')"]
DISPLAYS = [
    "from IPython.display import *\nfirst = display('1', display_id='one')",
    "display('2', display_id='one'); HTML('<b>x</b>')",
    "first.update({'text/plain': '3', 'text/html': '<i>3</i>'}, raw=True)",
    "update_display('nobody', display_id='never shown')",
    "Image(data=bytes.fromhex('89504e470d0a1a0a') + b'rest', format='png', metadata={'a': 1})",
    "JSON({'a': [1, 2.5, None]})",
]
ERRORS = ["print('before'); 1/0", "print('behind')", "raise SystemExit('no')", "syntax error"]
WIDGETS = [
    "import ipywidgets as w\nout, other = w.Output(), w.Output()\nout",
    "print('mine')\nwith out:\n    print('captured'); display('shown')\nprint('mine again')",
    "with out:\n    print('a')\n    with other: print('b')\n    print('c')",
    "print([o.get('text', o.get('data')) for o in out.outputs])\nprint(other.outputs[0]['text'])",
    "with out:\n    1/0",
    "out.clear_output()\nwith out: print('after')",
    "print([o.get('text') for o in out.outputs])",
    "@out.capture(clear_output=True)\ndef f(): print('in f')\nf(); print(len(out.outputs))",
    "w.IntSlider(value=3)",
]


def notebook_of(*sources: str) -> Any:
    cells = [new_markdown_cell("# text"), *map(new_code_cell, sources), new_code_cell("  ")]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return new_notebook(cells=cells, metadata=spec)


def shown(notebook: Any) -> list[Any]:
    """What the cells show, without what is another one in each run: the ids of widgets."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = copy.deepcopy(cell.outputs)
            for output in outputs:
                view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json")
                if view:
                    view["model_id"] = "an id"
            found.append((cell.execution_count, outputs))
    return found


async def by_nbclient(notebook: Any, allow_errors: bool = False) -> Any:
    """`notebook` as it has run it, in a process of its own: it leaves an event loop open."""
    code = (
        "import sys, nbclient, nbformat; notebook = nbformat.read(sys.stdin, as_version=4); "
        f"nbclient.execute(notebook, allow_errors={allow_errors}, coalesce_streams=True); "
        "nbformat.write(notebook, sys.stdout)"
    )
    given = nbformat.writes(notebook).encode()
    patience = 10
    while True:
        # It waits for ever now and then: in 4 of 25 runs of the widgets.
        with anyio.move_on_after(patience):
            ran = await anyio.run_process([sys.executable, "-c", code], input=given)
            return nbformat.reads(ran.stdout.decode(), as_version=4)
        patience *= 2


@pytest.mark.parametrize(
    ("sources", "allow_errors"),
    [(STREAMS, False), (DISPLAYS, False), (ERRORS, True), (WIDGETS, True)],
    ids=["streams", "displays", "errors", "widgets"],
)
async def test_outputs_are_those_of_nbclient(sources: list[str], allow_errors: bool) -> None:
    ours, theirs = notebook_of(*sources), notebook_of(*sources)
    await run_notebook(ours, allow_errors=allow_errors)
    theirs = await by_nbclient(theirs, allow_errors)
    nbformat.validate(ours)
    assert shown(ours) == shown(theirs)
    assert ours.metadata.language_info == theirs.metadata.language_info
    counted = [cell for cell in ours.cells if cell.get("execution_count")]
    assert len(counted) == len(sources)
    for cell in counted:
        assert {*cell.metadata.execution} >= {"iopub.status.busy", "iopub.status.idle"}


async def test_carriage_returns_stay_until_somebody_wants_the_text_as_it_looks() -> None:
    """nbclient drops what they overwrite where it joins streams."""
    ours, theirs = notebook_of(*PROGRESS), notebook_of(*PROGRESS)
    await run_notebook(ours)
    theirs = await by_nbclient(theirs)
    text = ours.cells[1].outputs[0].text
    assert text.count("\r") == 100
    assert plain_text(text) == plain_text(theirs.cells[1].outputs[0].text) == "99 %"


async def test_what_ran_before_an_error_is_kept() -> None:
    notebook = notebook_of("print('ran')", "1/0", "print('never')")
    with pytest.raises(ReplyError, match="ZeroDivisionError"):
        await run_notebook(notebook)
    counts, outputs = zip(*shown(notebook), strict=True)
    assert counts == (1, 2, None, None)
    assert [len(each) for each in outputs] == [1, 1, 0, 0]


async def test_a_tag_allows_an_error() -> None:
    notebook = notebook_of("1/0", "print('behind')")
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    await run_notebook(notebook)
    assert notebook.cells[2].outputs[0].text == "behind\n"


async def test_a_cell_has_its_time() -> None:
    notebook = notebook_of("print('begun', flush=True)\nwhile True: pass")
    with pytest.raises(TimeoutError):
        await run_notebook(notebook, cell_timeout=5)
    assert notebook.cells[1].outputs[0].text == "begun\n"
