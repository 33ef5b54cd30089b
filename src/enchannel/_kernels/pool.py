"""Kernels that are kept open on behalf of others.

A kernel's block must be left by the task that entered it, and the handlers of a service come and go. So each kernel of a
pool has an *owner*, a task of the pool that enters its block and leaves it; the others borrow the kernel.

* There is one kernel for each key. Who is the first to ask for it has it started, and all who ask meanwhile wait for it.
* There are no more kernels than the pool may have. Where there is no room, the one that nobody has used for the longest
  time is closed; where all are in use, who asks waits, first come first served, and has the next one that nobody uses. Who
  asks for one that is there need not wait.
* A kernel that is lost is put away, and the next who asks for its key gets another one. Who uses it is told.
* All are closed when the block of the pool is left, at the same time.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal, TypedDict

import anyio
import attrs

from .._bell import Bell
from .._channels import KernelChannels
from .._core.stream import fresh
from .._exceptions import EnchannelError, KernelLaunchError, LocalProtocolError
from .._groups import BlockTasks, block_task_group
from .._open_channels import OpenOptions
from .._protocol.arguments import check_amount
from .._trio import uncut_block
from .kernel import Kernel
from .launch import Launch
from .opening import opened
from .specs import KernelSpec

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["KernelPool", "Lease", "open_kernel_pool"]


class LaunchOptions(TypedDict, total=False):
    """The keyword arguments of :func:`~enchannel.open_kernel`."""

    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    launcher: Sequence[str]
    extra_arguments: Sequence[str]
    transport: Literal["auto", "ipc", "tcp"]
    encryption: Literal["auto", "required", "off"]
    startup_timeout: float


@attrs.frozen
class Lease:
    """A kernel of a pool, as who uses it has it; by :meth:`KernelPool.lease`.

    Attributes:
        key: What it was asked for by.
        kernel: It, a :class:`Kernel`; the pool's to close.
        channels: Its :class:`KernelChannels`, which all who use it share.

    Example:
        .. code-block:: python

            async with open_kernel_pool(max_kernels=2) as pool:
                async with pool.lease("ada") as lease:
                    await lease.channels.run("x = 1")
                    await lease.kernel.restart()
    """

    key: Hashable
    kernel: Kernel
    channels: KernelChannels


class _Member:
    """A kernel of the pool, from the moment that somebody asks for it until its process is gone."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.users = 0
        self.used_at = anyio.current_time()
        self.lease: Lease | None = None
        self.failure: Exception | None = None
        self.ready = anyio.Event()
        self.closing = False
        self.changed = Bell()
        self.starting = anyio.CancelScope()

    @property
    def usable(self) -> bool:
        """Whether it may be lent."""
        if self.closing or self.lease is None:
            return not self.closing
        kernel = self.lease.kernel
        # The owner may not have noticed yet. A kernel that is restarted is none that has gone.
        return self.lease.channels.lost is None and (kernel.restarting or kernel.returncode is None)

    def close(self) -> None:
        """Has its owner close it."""
        self.closing = True
        self.changed.ring()
        if self.lease is None and self.failure is None:
            self.starting.cancel()

    async def wait_closing(self, max_idle: float) -> None:
        """Waits until it is to be closed, or nobody has used it for so long."""
        while not self.closing:
            deadline = math.inf if self.users else self.used_at + max_idle
            with anyio.CancelScope(deadline=deadline) as scope:
                await self.changed.wait()
            if scope.cancelled_caught and not self.users:
                self.closing = True


class KernelPool:
    """Kernels that are kept open on behalf of others; made by :func:`open_kernel_pool`.

    Its length is how many there are, with those that are being started or closed.

    Example:
        .. code-block:: python

            async with open_kernel_pool(max_kernels=2) as pool:
                async with pool.lease("ada") as lease:
                    await lease.channels.run("x = 1")
                print(pool.keys)  # ['ada']
                async with pool.lease("ada") as lease:
                    print((await lease.channels.run("x")).text)  # 1
                await pool.discard("ada")
                print(len(pool))  # 0
    """

    def __init__(
        self,
        tasks: BlockTasks,
        launch: Launch,
        channel_options: OpenOptions,
        *,
        max_kernels: int,
        max_idle: float,
    ) -> None:
        self._tasks = tasks
        self._launch = launch
        self._channel_options = channel_options
        self._max_kernels = max_kernels
        self._max_idle = max_idle
        self._members: list[_Member] = []
        self._changed = Bell()
        self._turns = anyio.Lock()
        self._waiting = 0
        self._left = False

    @uncut_block
    async def lease(self, key: Hashable) -> AsyncIterator[Lease]:
        """Lends the kernel of `key`, as an async context manager that gives a :class:`Lease`.

        It is started where there is none; where there is no room, the one is closed that nobody has
        used for the longest time, and where all are in use, whoever asks waits, first come first
        served. Any number of tasks may use one kernel at a time. It stays open behind the block, as
        long as there is room and it is alive. Cancellation leaves a kernel that is being started to
        whoever asks next.

        Args:
            key: Whatever has a hash: a user, a notebook.

        Raises:
            LocalProtocolError: On entry: the key cannot be one.
            KernelLaunchError: On entry: the kernel could not be started.
            KernelConnectError: On entry: it was started, and a channel did not answer.
            KernelDied: In the block, from what is asked of the kernel: it is lost or was discarded,
                or the pool is being left; what closes it interrupts the code that runs. The next
                lease has another one.
            anyio.ClosedResourceError: The block of the pool was left.
        """
        try:
            hash(key)
        except TypeError:
            raise LocalProtocolError(
                f"a key has a hash, which {type(key).__name__} has not"
            ) from None
        member = await self._ready_member(key)
        try:
            assert member.lease is not None
            yield member.lease
        finally:
            self._give_back(member)

    async def discard(self, key: Hashable) -> None:
        """Closes the kernel of `key`, whoever uses it, and waits until it is; nothing where there
        is none.

        Who asks meanwhile gets another one. Cancellation changes nothing.

        Args:
            key: What it was asked for by.
        """
        for member in [each for each in self._members if each.key == key]:
            member.close()
            while member in self._members:
                await self._changed.wait()

    @property
    def keys(self) -> Sequence[Hashable]:
        """Those of the kernels that may be lent, or are being started."""
        return [member.key for member in self._members if member.usable]

    def __len__(self) -> int:
        """How many kernels there are, with those that are being started or closed."""
        return len(self._members)

    def __repr__(self) -> str:
        used = sum(bool(member.users) for member in self._members)
        state = ", left" if self._left else ""
        return f"<KernelPool {len(self)} of {self._max_kernels} kernels, {used} in use{state}>"

    # Who is a member.

    async def _ready_member(self, key: Hashable) -> _Member:
        """One that is lent to the caller."""
        while True:
            member = await self._member(key)
            member.users += 1
            try:
                await member.ready.wait()
                if self._left:
                    raise self._closed()
                if isinstance(member.failure, EnchannelError):
                    raise fresh(member.failure)
                if member.failure is not None:
                    said = f"the kernel could not be started: {member.failure!r}"
                    raise KernelLaunchError(said, reason="system") from member.failure
            except BaseException:
                self._give_back(member)
                raise
            if member.lease is not None:
                return member
            # It was discarded before it was there.
            self._give_back(member)

    def _give_back(self, member: _Member) -> None:
        member.users -= 1
        member.used_at = anyio.current_time()
        member.changed.ring()
        self._changed.ring()
        if self._waiting:
            # Now, or who takes it again at once would have it before whoever waits has looked.
            self._has_room()

    async def _member(self, key: Hashable) -> _Member:
        member = self._find(key)
        if member is None:
            self._waiting += 1
            try:
                async with self._turns:
                    while (member := self._find(key)) is None and not self._has_room():
                        await self._changed.wait()
            finally:
                self._waiting -= 1
            if member is None:
                member = _Member(key)
                self._members.append(member)
                self._tasks.start_soon(self._own, member, name="enchannel owner")
        return member

    def _find(self, key: Hashable) -> _Member | None:
        if self._left:
            raise self._closed()
        for member in self._members:
            if member.key == key and member.usable:
                return member
        return None

    def _has_room(self) -> bool:
        """Whether there may be one more; where not, makes room if that can be."""
        if len(self._members) < self._max_kernels:
            return True
        unused = [member for member in self._members if not member.users]
        # One that is closing, or has died, makes room by itself.
        if unused and all(member.usable for member in self._members):
            min(unused, key=lambda member: member.used_at).close()
        return False

    def _closed(self) -> anyio.ClosedResourceError:
        return anyio.ClosedResourceError("the block of the pool was left")

    # The owners.

    async def _own(self, member: _Member) -> None:
        """Keeps a kernel open, until it is to be closed, or is lost."""
        try:
            with member.starting:
                async with opened(self._launch) as kernel:
                    self._tasks.start_soon(
                        self._own_channels, member, kernel, name="enchannel owner of channels"
                    )
                    await member.wait_closing(self._max_idle)
        except Exception as error:  # noqa: BLE001
            # Told to who has asked for this one, and not to everybody.
            member.failure = error
        finally:
            self._put_away(member)

    async def _own_channels(self, member: _Member, kernel: Kernel) -> None:
        """Keeps the channels open for as long as anybody uses them: he is told that the kernel died.

        Behind their block they would say that it was left, and the kernel's is left before.
        """
        try:
            async with kernel.open_channels(**self._channel_options) as channels:
                member.lease = Lease(member.key, kernel, channels)
                member.ready.set()
                await channels.wait_lost()
                member.close()
                while member.users and not self._left:
                    await self._changed.wait()
        except Exception as error:  # noqa: BLE001
            member.failure = error
            member.close()

    def _put_away(self, member: _Member) -> None:
        member.closing = True
        member.ready.set()
        if member in self._members:
            self._members.remove(member)
        self._changed.ring()

    async def close_all(self) -> None:
        """Has all closed, and waits until they are. Shielded."""
        self._left = True
        for member in tuple(self._members):
            member.close()
        self._changed.ring()
        await self._tasks.wait_ended()


def open_kernel_pool(
    name: str | KernelSpec = "python3",
    *,
    max_kernels: int,
    max_idle: float = math.inf,
    channel_options: OpenOptions | None = None,
    **options: Unpack[LaunchOptions],
) -> AbstractAsyncContextManager[KernelPool]:
    """Keeps kernels open on behalf of others: one for each key, started when it is first asked for.

    A kernel's block must be left by the task that entered it; in a pool that is a task of the pool,
    and leases may be taken and given back by any. On the way out all kernels are stopped at the
    same time, as :func:`open_kernel` has it; that is shielded from cancellation.

    A synchronous program holds a pool, or a kernel, through AnyIO's portal::

        with start_blocking_portal() as portal:
            with portal.wrap_async_context_manager(open_kernel_pool(max_kernels=2)) as pool:
                with portal.wrap_async_context_manager(pool.lease("me")) as lease:
                    done = portal.call(lease.channels.run, "6 * 7")

    Args:
        name: The name of an installed kernelspec, or a :class:`KernelSpec`.
        max_kernels: How many there may be at a time.
        max_idle: Seconds that a kernel may be unused before it is closed.
        channel_options: Those of :meth:`Kernel.open_channels` for the channels of leases, such as
            ``{"max_message_size": 2**20}``; what cannot be used is raised where a lease is taken.
        options: Those of :func:`open_kernel`, for each of them.

    Raises:
        LocalProtocolError: An argument cannot be used (raised at the call).
        KernelLaunchError: There is no such kernelspec (raised at the call).

    Example:
        .. code-block:: python

            async with open_kernel_pool("python3", max_kernels=10) as pool:
                async with pool.lease("ada") as lease:
                    done = await lease.channels.run("6 * 7")
                    print(done.text)  # 42
    """
    most: object = max_kernels
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise LocalProtocolError(f"max_kernels is a number, 1 or more, not {max_kernels!r}")
    check_amount("max_idle", max_idle, 0, "seconds")
    given: object = channel_options
    if given is not None and not isinstance(given, Mapping):
        raise LocalProtocolError(f"channel_options is a mapping, not {type(given).__name__}")
    unknown = (channel_options or {}).keys() - OpenOptions.__annotations__.keys()
    if unknown:
        raise LocalProtocolError(
            f"channel_options has {min(unknown)!r}, which open_channels has not"
        )
    launch = Launch.checked(name, **options)
    return _opened(launch, channel_options or {}, max_kernels, max_idle)


@uncut_block
async def _opened(
    launch: Launch, channel_options: OpenOptions, max_kernels: int, max_idle: float
) -> AsyncIterator[KernelPool]:
    async with block_task_group("the pool") as tasks:
        pool = KernelPool(
            tasks, launch, channel_options, max_kernels=max_kernels, max_idle=max_idle
        )
        try:
            yield pool
        finally:
            await pool.close_all()
