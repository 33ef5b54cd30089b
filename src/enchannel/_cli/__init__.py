"""The ``enchannel`` command."""
