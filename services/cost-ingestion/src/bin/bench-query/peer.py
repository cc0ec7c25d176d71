"""DuckDB as the peer: reads questions (SQL) line by line, and answers each with one line of JSON."""
import json
import resource
import sys
import time

import duckdb

connection = duckdb.connect()
# It would be drawn on standard output, among the answers.
connection.execute("set enable_progress_bar = false")
for line in sys.stdin:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    rows = connection.execute(json.loads(line)).fetchall()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall": wall, "cpu": cpu, "rows": [[str(cell) for cell in row] for row in rows]}), flush=True)
