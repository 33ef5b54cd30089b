project = "enchannel"
author = "the enchannel developers"
copyright = "2026, the enchannel developers"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["enchannel.css"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
# The inventories of other projects are not fetched, so that a build needs no network.
intersphinx_mapping = {}
nitpick_ignore_regex = [
    ("py:.*", r"(anyio|trio|attrs|zmq|datetime|collections|enchannel)\b.*|memoryview|T|.*\bBody")
]
