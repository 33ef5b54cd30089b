"""Every exception of the library outlives a copy and a pickle, whatever its ``__init__`` takes."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import enchannel
from enchannel import (
    ConnectionFileError,
    EnchannelError,
    InvalidSignature,
    KernelConnectError,
    KernelDied,
    KernelLaunchError,
    LocalProtocolError,
    MalformedMessage,
    MessageTooLarge,
    NotImplementedByKernel,
    ProtocolError,
    RecordingError,
    RemoteProtocolError,
    ReplayedMessage,
    ReplyError,
    ServerError,
    _exceptions,
)

REPLY = {
    "status": "error",
    "ename": "ZeroDivisionError",
    "evalue": "division by zero",
    "traceback": ["line 1", "line 2"],
    "more": {"nested": [1, None]},
}


class OfAnApplication(KernelDied):
    """Its arguments are not those of its base."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"exit code {code}", "exited")
        self.code = code


EXAMPLES: list[EnchannelError] = [
    EnchannelError(),
    EnchannelError("text", 2),
    ProtocolError("text"),
    RecordingError("text"),
    LocalProtocolError("text"),
    RemoteProtocolError("text"),
    MalformedMessage("text"),
    MessageTooLarge("text"),
    InvalidSignature("text"),
    ReplayedMessage("text"),
    ConnectionFileError("text"),
    KernelConnectError("text"),
    KernelConnectError("text", {"shell": "tcp://127.0.0.1:1 (refused)"}),
    KernelDied("text"),
    KernelDied("text", "heartbeat"),
    KernelLaunchError("text"),
    KernelLaunchError("text", "its stderr"),
    KernelLaunchError("text", reason="address taken"),
    _exceptions.NoReply("text"),
    _exceptions.NoReply("text", "interrupted"),
    NotImplementedByKernel("text"),
    NotImplementedByKernel("text", "another reason"),
    ReplyError(REPLY),
    ReplyError({}),
    ServerError("text"),
    ServerError("text", 403, "its words"),
    ServerError("text", reached=False),
    OfAnApplication(code=3),
]


def tree(error: type[EnchannelError] = EnchannelError) -> Iterator[type[EnchannelError]]:
    yield error
    for below in error.__subclasses__():
        yield from tree(below)


def pickled(protocol: int) -> Callable[[Any], Any]:
    def again(error: Any) -> Any:
        return pickle.loads(pickle.dumps(error, protocol))

    again.__name__ = f"pickle-{protocol}"
    return again


ways = pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *map(pickled, range(pickle.HIGHEST_PROTOCOL + 1))],
    ids=lambda way: way.__name__,
)
examples = pytest.mark.parametrize("error", EXAMPLES, ids=repr)


def test_every_exception_of_the_library_has_an_example() -> None:
    for module in pkgutil.walk_packages(enchannel.__path__, "enchannel."):
        importlib.import_module(module.name)
    library = {each for each in tree() if each.__module__.startswith("enchannel.")}
    assert library - set(map(type, EXAMPLES)) == set()


@ways
@examples
def test_a_copy_is_the_same_in_all_that_can_be_seen(
    error: EnchannelError, again: Callable[[Any], Any]
) -> None:
    error = copy.deepcopy(error)
    error.add_note("a note")
    error.mine = "set by an application"  # type: ignore[attr-defined]
    other = again(error)
    assert other is not error
    assert type(other) is type(error)
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert vars(other) == vars(error)
    assert other.__notes__ == ["a note"]
    # A copy of the copy, too.
    assert vars(again(other)) == vars(error)


@examples
def test_what_an_exception_holds_is_public(error: EnchannelError) -> None:
    assert [name for name in vars(error) if name.startswith("_")] == []


@ways
def test_arguments_that_were_replaced_stay_so(again: Callable[[Any], Any]) -> None:
    error = KernelDied("text", "heartbeat")
    error.args = ("another", "text")
    other = again(error)
    assert (str(other), other.args, other.reason) == (str(error), error.args, "heartbeat")


def test_a_deep_copy_shares_nothing() -> None:
    error = ReplyError(copy.deepcopy(REPLY))
    other = copy.deepcopy(error)
    other.reply["more"]["nested"].append(2)
    other.traceback.clear()
    assert (error.reply, error.traceback) == (REPLY, REPLY["traceback"])
