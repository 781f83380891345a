"""The operations that are measured, and what applies them: wrk, or a slower client of our own."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.benchmarks.databases import SEEDED
from tests.benchmarks.processes import LOAD_CORE, on_core
from tests.benchmarks.results import Measurement

CONNECTIONS = 32
SPARE_ROWS = 2_000
SCRIPT = Path(__file__).with_name("load.lua")
HAS_WRK = shutil.which("wrk") is not None
GENERATOR = "wrk" if HAS_WRK else "tests/benchmarks/client.py (slower than wrk: compare only within this run)"


@dataclass(frozen=True)
class Operation:
    """A kind of load: the shares of each kind of request, or of a path that is read."""

    name: str
    label: str
    shares: dict[str, int]

    def rows_to_delete(self, seconds: int, reads_per_second: float) -> int:
        """Say how many rows it takes not to run out, were this operation twice as fast as GET one."""
        share = self.shares.get("delete", 0) / 100
        return int(share * seconds * reads_per_second * 2) + SPARE_ROWS if share else 0


OPERATIONS = (
    Operation("get", "GET one", {"get": 100}),
    Operation("list", "list 100", {"list": 100}),
    Operation("post", "POST", {"post": 100}),
    Operation("put", "PUT", {"put": 100}),
    Operation("delete", "DELETE", {"delete": 100}),
    Operation("mix", "mix", {"get": 80, "list": 10, "post": 4, "put": 4, "delete": 2}),
)
MIX = OPERATIONS[-1]


def apply_load(
    operation: Operation, port: int, seconds: int, first_to_delete: int, ids: Path | None = None
) -> Measurement:
    """Load a server with one operation for whole seconds; RuntimeError where the generator itself failed.

    The students are the seeded ones, or those of a file with an id in each line, which wrk reads: then what is deleted
    begins with one of its lines.
    """
    shares = [f"{kind}={percent}" for kind, percent in operation.shares.items()]
    arguments = [str(ids or SEEDED), str(first_to_delete), *shares]
    if HAS_WRK:
        options = [
            "--threads",
            "1",
            "--connections",
            str(CONNECTIONS),
            "--duration",
            f"{seconds}s",
            "--timeout",
            "10s",
        ]
        command = ["wrk", *options, "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", *arguments]
    else:
        client = [sys.executable, "-m", "tests.benchmarks.client"]
        command = [*client, str(port), str(seconds), str(CONNECTIONS), *arguments]
    finished = subprocess.run(on_core(LOAD_CORE, command), capture_output=True, text=True, check=False)
    _, found, result = finished.stdout.partition("RESULT ")
    if not found:
        raise RuntimeError(f"{command[0]} failed: {finished.stdout}{finished.stderr}")
    return msgspec.json.decode(result, type=Measurement)
