"""Logs in by psycopg as PGUSER; prints its version and who it is."""
import psycopg

with psycopg.connect("sslmode=disable", connect_timeout=10) as session:
    print(psycopg.__version__)
    print(session.execute("SELECT current_user").fetchone()[0])
