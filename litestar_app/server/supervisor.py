"""The supervisor of several workers: it starts them, replaces those that die or hang, and ends them in time."""

import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from multiprocessing import resource_tracker

import uvicorn
from uvicorn.supervisors.multiprocess import SIGNALS, Process

from litestar_app.database.sqlite import identify

logger = logging.getLogger("uvicorn.error")

TICK = 0.5
"""Seconds between two looks at the workers."""
MAX_SILENCE = 10
"""Looks without a response after which a worker that has served counts as hung. Looks, and not seconds: if everything
is frozen for a while, the workers too, none of them is to blame."""
MAX_START = 1200
"""Looks after which a worker that does not serve yet counts as hung: imports may be slow, and the database away."""
MIN_START = 10
"""Looks between the starts of two workers, if the first one did not come to serve."""
MARGIN = 15
"""Seconds beyond those for requests in flight that a worker may take to end."""


class Worker(Process):
    """A worker, which is asked again and again whether it serves, and never waited for."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        """Take what uvicorn takes."""
        super().__init__(config, sockets)
        self.has_served = False
        self.age = 0
        """Looks since its start."""
        self._silence = 0
        self._deadline = 0.0

    def start(self) -> None:
        """Start it. It does not get Ctrl-C, which a terminal sends to all processes: that is the supervisor's."""
        if sys.platform == "win32":
            super().start()
        else:
            resource_tracker.ensure_running()  # or the first worker starts it, which ends the blocking
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the worker inherits it
            super().start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.parent_conn.send(b"ping")

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in the process."""
        _ = self.server  # made before the thread that responds to pings, or each of them might make one
        super().target(sockets)

    def look(self) -> None:
        """Take its response to the last ping, if it has come, and send the next one."""
        self.age += 1
        self._silence += 1
        with suppress(OSError, EOFError):  # it has died
            if self.parent_conn.poll():
                self.has_served |= self.parent_conn.recv()
                self._silence = 0
                self.parent_conn.send(b"ping")

    @property
    def is_running(self) -> bool:
        """Tell whether the process is there, whatever it does."""
        return self.process.is_alive()

    @property
    def hangs(self) -> bool:
        """Tell whether it has not responded for too long; what does not serve yet has much more time."""
        return self._silence > MAX_SILENCE if self.has_served else self.age > MAX_START

    def end(self, seconds: float) -> None:
        """Have it complete the requests in flight, in so many seconds."""
        if not self._deadline:
            self._deadline = time.monotonic() + seconds
            self.terminate()

    def has_ended(self) -> bool:
        """Tell whether it has ended; it is killed when its time is over."""
        if self.is_running and time.monotonic() > self._deadline:
            logger.error("Child process [%s] has not ended in time and is killed", self.pid)
            self.kill()
            self.process.join()
        return not self.is_running


class Supervisor:
    """Runs as many workers as the configuration says; a restart (SIGHUP) replaces one after the other.

    It never waits for a worker, so that SIGTERM ends the service whatever it was doing.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], database: str | None) -> None:
        """Take the path of the SQLite file, if it is one."""
        self._config = config
        self._sockets = sockets
        self._database = database
        self._file = identify(database) if database else None
        self._time_to_end = (config.timeout_graceful_shutdown or 0) + MARGIN
        self._workers: list[Worker] = []
        self._outdated: list[Worker] = []
        """Workers that a restart has yet to replace."""
        self._replacement: Worker | None = None
        """Of the first of them, until it serves."""
        self._ending: list[Worker] = []
        self._signals: list[int] = []
        self._has_served = False
        self._is_stopping = self._has_failed = False

    def run(self) -> bool:
        """Run until a signal ends it; false if no worker has started."""
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))
        logger.info("Started parent process [%s]", os.getpid())
        for _ in range(self._config.workers):
            self._workers.append(self._start())
        self._handle_signals()
        while not self._is_stopping:
            time.sleep(TICK)
            self._handle_signals()
            if not self._is_stopping:
                self._look()
        self._end_all()
        logger.info("Stopping parent process [%s]", os.getpid())
        return not self._has_failed

    def _start(self) -> Worker:
        worker = Worker(self._config, self._sockets)
        worker.start()
        return worker

    def _handle_signals(self) -> None:
        signals, self._signals = self._signals, []
        names = {SIGNALS[number] for number in signals}  # several SIGHUP are one
        if names & {"TERM", "INT", "BREAK"}:
            logger.info("Received SIG%s, exiting.", " and SIG".join(sorted(names & {"TERM", "INT", "BREAK"})))
            self._is_stopping = True
            return
        if "HUP" in names:
            logger.info("Received SIGHUP, restarting processes.")
            self._outdated = self._get_all()
        if "TTIN" in names:
            self._workers.append(self._start())
        if "TTOU" in names and len(self._workers) > 1:
            self._end(self._workers.pop())

    def _get_all(self) -> list[Worker]:
        return [*self._workers, *([self._replacement] if self._replacement else [])]

    def _end(self, worker: Worker) -> None:
        worker.end(self._time_to_end)
        self._ending.append(worker)

    def _look(self) -> None:
        for worker in self._get_all():
            worker.look()
            if worker.is_running and worker.hangs:
                logger.error("Child process [%s] does not respond and is killed", worker.pid)
                worker.kill()
                worker.process.join()
        self._ending = [worker for worker in self._ending if not worker.has_ended()]
        self._has_served |= any(worker.has_served for worker in self._workers)
        if self._has_served:
            self._replace_dead()
            self._restart()
        elif not any(worker.is_running for worker in self._workers):
            logger.error("All child processes failed to start, stopping the parent process.")
            self._is_stopping = self._has_failed = True

    def _replace_dead(self) -> None:
        """Replace workers that have died, but not on another file than the others have: writes would get lost."""
        for number, worker in enumerate(self._workers):
            if worker.is_running or not (worker.has_served or worker.age > MIN_START):
                continue
            if self._database and identify(self._database) != self._file:
                if not any(other.is_running for other in self._workers):
                    logger.error("%s is not the file that was opened, and no worker is left", self._database)
                    self._is_stopping = True
                return  # those that are left respond 503
            logger.info("Child process [%s] died", worker.pid)
            self._workers[number] = self._start()

    def _restart(self) -> None:
        """Take the next step of a restart: start a worker, or end the one that it replaces once it serves."""
        self._outdated = [worker for worker in self._outdated if worker in self._get_all()]
        new = self._replacement
        if new is None:
            if self._outdated and not self._ending:
                self._replacement = self._start()
        elif not new.is_running:
            logger.error("New child process [%s] was not ready in time; aborting the restart.", new.pid)
            self._outdated, self._replacement = [], None
        elif new.has_served:
            self._replacement = None
            old = next((worker for worker in self._outdated if worker is not new), new)
            if old is not new:  # or all the others have died and been replaced meanwhile
                self._outdated.remove(old)
                self._workers[self._workers.index(old)] = new
            self._end(old)

    def _end_all(self) -> None:
        """Take no new connections, then end the workers; else nobody would respond to new requests."""
        for listener in self._sockets:
            listener.close()
        for worker in self._get_all():
            self._end(worker)
        while self._ending:
            self._ending = [worker for worker in self._ending if not worker.has_ended()]
            time.sleep(TICK / 10)
