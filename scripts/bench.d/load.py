"""Fills an empty database of the embedded store as if every key had been set once: load.py DATABASE KEYS

Keys are key-0000000 onwards, values JSON of 100 bytes. Writes what src/store/sqlite/schema.rs would write.
"""

import os
import sqlite3
import sys
import time
import zlib

VERSION = 1
CHANGES_KEPT = 100_000
VALUE_SIZE = 100

path, keys = sys.argv[1], int(sys.argv[2])
if not os.path.exists(path):
    sys.exit(f"load.py: {path} does not exist; mount it once to have the tables created")
db = sqlite3.connect(path, isolation_level=None)
version = db.execute("PRAGMA user_version").fetchone()[0]
if version != VERSION:
    sys.exit(f"load.py: {path} has format {version}; this script writes format {VERSION}")
if db.execute("SELECT count(*) FROM entry").fetchone()[0]:
    sys.exit(f"load.py: {path} is not empty")

now = time.time_ns()
random = os.urandom(16 * keys)


def entries():
    for i in range(keys):
        key = f"key-{i:07}"
        sum = zlib.crc32(key.encode() + value(i))
        yield key, random[16 * i : 16 * i + 16], i + 1, VALUE_SIZE, now, now, i + 1, sum


PAD = b"x" * (VALUE_SIZE - len(b'{"n":"0000000","pad":""}\n'))


def value(i):
    return b'{"n":"%07d","pad":"%s"}\n' % (i, PAD)


def values():
    for i in range(keys):
        yield i + 1, value(i)


db.execute("PRAGMA synchronous=OFF")
db.execute("BEGIN IMMEDIATE")
db.executemany(
    "INSERT INTO entry (key, id, revision, size, created, modified, value_id, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    entries(),
)
db.executemany("INSERT INTO value (id, bytes) VALUES (?, ?)", values())
db.executemany(
    "INSERT INTO change (revision, key) VALUES (?, ?)",
    ((i + 1, f"key-{i:07}") for i in range(max(0, keys - CHANGES_KEPT), keys)),
)
db.execute("COMMIT")
wrong = "SELECT count(*) FROM value WHERE length(bytes) <> ? OR NOT json_valid(CAST(bytes AS TEXT))"
if db.execute(wrong, (VALUE_SIZE,)).fetchone()[0]:
    sys.exit("load.py: a value is not JSON of the promised size")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
db.close()
