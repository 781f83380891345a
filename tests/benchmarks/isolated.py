"""Runs a module as `python -m` does, with packages hidden: `python -m tests.benchmarks.isolated NAME,NAME MODULE ...`.

Litestar and advanced-alchemy import whatever else is installed that they can work with, such as Pydantic and numpy.
In the environment of the benchmark that is everything, which costs half of their memory and start-up time.
"""

import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import ClassVar


class OwnPackages(PathFinder):
    """The usual search for modules, blind to some."""

    hidden: ClassVar[set[str]] = set()

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module, unless its top-level package is hidden and no other has its name, as PyMySQL has MySQLdb's."""
        name = fullname.partition(".")[0]
        is_hidden = name in cls.hidden and name not in sys.modules
        return None if is_hidden else super().find_spec(fullname, path, target)


if __name__ == "__main__":
    OwnPackages.hidden.update(sys.argv[1].split(","))
    sys.meta_path[sys.meta_path.index(PathFinder)] = OwnPackages
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
