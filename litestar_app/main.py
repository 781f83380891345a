"""`app`, for uvicorn and for the commands of Litestar. Importing it touches no database."""

import sys

from litestar_app.app import create_app
from litestar_app.exceptions import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"student-records: {error}")
