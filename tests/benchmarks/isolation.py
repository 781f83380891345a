"""Gives every candidate the packages that it would have in an environment of its own, and no more."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def run_isolated(module: str, requirements: Iterable[str], arguments: Iterable[str]) -> list[str]:
    """Return the command that runs a module with nothing to import but what the requirements bring."""
    hidden = ",".join(hidden_modules(frozenset(requirements)))
    return [sys.executable, "-m", "tests.benchmarks.isolated", hidden, module, *arguments]


@cache
def hidden_modules(requirements: frozenset[str]) -> list[str]:
    """List the installed top-level modules that belong to other packages."""
    own = find_dependencies(requirements)
    return sorted(
        module
        for module, packages in packages_distributions().items()
        if not own.intersection(map(canonicalize_name, packages)) and module not in {"tests", "litestar_app"}
    )


def find_dependencies(requirements: Iterable[str]) -> set[str]:
    """Follow requirements to the names of all installed packages that they bring."""
    waiting = [Requirement(requirement) for requirement in requirements]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        try:
            children = map(Requirement, distribution(requirement.name).requires or [])
        except PackageNotFoundError:
            continue
        seen.add(key)
        waiting += [
            child
            for child in children
            if child.marker is None
            or any(child.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras})
        ]
    return {name for name, _ in seen}
