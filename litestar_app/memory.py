"""Memory that the workers of a service share. No file system can fill it up, clean it up or lack it."""

import mmap
import os
from tempfile import TemporaryFile
from typing import Any


class SharedMemory:
    """Memory that the supervisor makes and its workers inherit. It has no name, and is gone with the last of them."""

    def __init__(self, size: int) -> None:
        """Make so many bytes, all 0; a page takes memory when it is first used.

        Raises:
            OSError: the system grants none.

        """
        self._map(_create_file(size), size)

    def _map(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, size)

    def __getstate__(self) -> tuple[Any, ...]:
        """Hand it to a process that is being started."""
        from multiprocessing.reduction import DupFd  # noqa: PLC0415  of use to the supervisor only

        return DupFd(self.descriptor), len(self.memory)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take it over in that process."""
        descriptor, size = state
        self._map(descriptor.detach(), size)


def _create_file(size: int) -> int:
    """Return the descriptor of a file without a name: of memory, or where the system has no such files, of the disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("student-records")
        os.truncate(descriptor, size)
        return descriptor
    with TemporaryFile() as file:
        file.write(bytes(size))  # a page that is not on the disk yet would end the process where the disk is full
        file.flush()
        return os.dup(file.fileno())
