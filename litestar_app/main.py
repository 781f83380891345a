"""`app`, for uvicorn and for the commands of Litestar. Importing it touches no database."""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

from litestar_app.app import create_app
from litestar_app.exceptions import SettingsError


def stop_with(supervisor: BaseProcess) -> None:
    """Stop this worker in order once its supervisor is gone; else it would go on serving, and hold the port."""
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


if supervisor := multiprocessing.parent_process():
    threading.Thread(target=stop_with, args=[supervisor], name="supervisor", daemon=True).start()

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"student-records: {error}")
