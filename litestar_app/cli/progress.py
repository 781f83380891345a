"""Progress on a terminal; none in a pipe."""

import shutil
import sys
import time


class Progress:
    """One line on a terminal: rows so far, how many a second, and the remaining time where it is known."""

    def __init__(self, verb: str, *, is_shown: bool = True) -> None:
        self._verb = verb
        self.is_shown = is_shown and sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, rows: int, share: float | None = None) -> None:
        """Tell how many rows are done, and which share of all that is."""
        now = time.monotonic()
        if not self.is_shown or now < self._next:
            return
        self._next = now + 0.2
        elapsed = now - self._began
        line = f"{rows:,} rows {self._verb}, {rows / max(elapsed, 0.001):,.0f} a second"
        if share:
            seconds = round(elapsed * (1 - share) / share)
            line += f", {share:.0%}, {seconds // 60}:{seconds % 60:02} left"
        self.say(line)

    def say(self, line: str) -> None:
        """Replace the line."""
        if self.is_shown:
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave an empty line."""
        self.say("")
