"""Logs in by pg8000 as PGUSER; prints its version and who it is."""
import os
from importlib.metadata import version

import pg8000.native

session = pg8000.native.Connection(
    os.environ["PGUSER"], host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"], password=os.environ["PGPASSWORD"], timeout=10,
)
print(version("pg8000"))
print(session.run("SELECT current_user")[0][0])
session.close()
