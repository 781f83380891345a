"""Datasette on the file that `sqlite-utils insert` fills; the file is made as `datasette --create` makes it."""

import os
import sqlite3
from contextlib import closing

from datasette.app import Datasette

PATH = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

with closing(sqlite3.connect(PATH)) as connection:
    connection.execute("VACUUM")

app = Datasette([PATH], settings={"max_csv_mb": 0}).app()
