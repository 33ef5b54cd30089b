"""How the documentation is built: ``nox -s docs``."""

import ast
import importlib
import inspect
import pkgutil
import sys

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.inspect import TypeAliasForwardRef

import enchannel

# What a module imports for type checkers alone is imported into it, so that Sphinx knows what the names in a signature
# are. That makes no circles: see tests/test_rooms.py.
for found in pkgutil.walk_packages(enchannel.__path__, "enchannel."):
    module = importlib.import_module(found.name)
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = ast.Module(node.body, type_ignores=[])
            exec(compile(imports, found.name, "exec", dont_inherit=True), vars(module))  # noqa: S102

project = "enchannel"
author = "the enchannel developers"
copyright = "2026, the enchannel developers"
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["enchannel.css"]
exclude_patterns = ["_build"]
# Type variables, and a protocol that only we implement.
nitpick_ignore_regex = [("py:class", r"enchannel\..*\.(Item|T|Widgets)")]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
# These are shown by their names, and not as what they stand for.
autodoc_type_aliases = {
    name: f"{module}.{name}"
    for module, names in {
        "enchannel._conversations.execution": ["OnInput"],
        "enchannel._conversations.recorder": ["Redact"],
        "enchannel._exceptions": ["LaunchFailure", "LossReason", "NoReplyReason"],
        "enchannel._open_channels": ["Identity", "Topics"],
        "enchannel._protocol.connection_info": ["Config"],
        "enchannel._protocol.message": ["Body", "ChannelName", "RequestChannel"],
        "enchannel._protocol.outputs": ["Output"],
        "enchannel._protocol.recording": ["Kind"],
        "enchannel._streams": ["KernelStatus"],
        "enchannel._transports.base": ["Start", "Tell"],
        "enchannel.testing._fake_comms": ["CommHandler"],
        "enchannel.testing._fake_kernel": ["Handler", "Step", "Tamper"],
        "enchannel.testing._checks.run": ["Make"],
        "enchannel.testing._reachable": ["TransportName"],
    }.items()
    for name in names
}
# Within another type Sphinx would write what it holds for such a name.
TypeAliasForwardRef.__repr__ = lambda self: self.name

# Where the documentation of others is. Their inventories are not fetched, so that a build needs no network.
RENAMED = {
    "Buffer": "typing_extensions.Buffer",
    "zmq.sugar.context.Context": "zmq.Context",
    "zmq.sugar.socket.Socket": "zmq.Socket",
}
PYTHON = "https://docs.python.org/3/library/{module}.html#{name}"
ELSEWHERE = {
    "anyio": "https://anyio.readthedocs.io/en/stable/api.html#{name}",
    "attrs": "https://www.attrs.org/en/stable/api.html#{name}",
    "typing_extensions": "https://typing-extensions.readthedocs.io/en/latest/#{name}",
    "zmq": "https://pyzmq.readthedocs.io/en/latest/api/{module}.html#{name}",
    **dict.fromkeys(sys.stdlib_module_names, PYTHON),
}


def google_style(app, what, name, obj, options, lines):
    """As the extension has it, but for attributes: there it takes what stands before the first colon for a type."""
    kind = "method" if what in {"attribute", "data", "property"} else what
    lines[:] = GoogleDocstring(lines, what=kind, name=name, obj=obj, options=options).lines()


def signature_as_called(app, what, name, obj, options, signature, returns):
    """Of a class that nobody calls the name alone (its directive has ``()``), and what a context manager is."""
    if what == "class" and signature == "()":
        return "", None
    wrapped = inspect.unwrap(obj)
    if wrapped is not obj and inspect.isasyncgenfunction(wrapped):
        manager = "~contextlib.AbstractAsyncContextManager["
        return signature, returns.replace("~collections.abc.AsyncIterator[", manager)
    return None


def without_private_module(app, domain, objtype, contentnode):
    """Types that only signatures name are shown without the module that they happen to be in."""
    for node in list(contentnode.parent.findall(addnodes.desc_addname)):
        if "._" in node.astext():
            node.parent.remove(node)


def refer_elsewhere(app, env, node, contnode):
    """A link to the documentation of others."""
    if node.get("refdomain") != "py":
        return None
    target = RENAMED.get(node["reftarget"], node["reftarget"])
    is_module = node["reftype"] == "mod"
    module = target if is_module else target.rpartition(".")[0]
    pattern = ELSEWHERE.get(module.partition(".")[0])
    if pattern is None:
        return None
    uri = pattern.format(module=module, name=f"module-{target}" if is_module else target)
    return nodes.reference("", "", contnode, internal=False, refuri=uri)


def setup(app):
    app.connect("autodoc-process-docstring", google_style)
    app.connect("autodoc-process-signature", signature_as_called)
    app.connect("object-description-transform", without_private_module)
    app.connect("missing-reference", refer_elsewhere)
