# SPDX-License-Identifier: GPL-2.0-or-later
"""A database in the guest "debian-io" that checks itself: a chain of rows, each with the hash of the one before.

A row that is lost, doubled or older than the guest was told breaks the chain. Each transaction is acknowledged with a line once
SQLite has had it on the disk (`synchronous` FULL), so that the host knows the last one even when the guest is gone.
"""

from __future__ import annotations

import re

from splitvisor.guests.commands import Commands

LOAD_S = 300.0
_SCRIPT = "/tmp/sqlite-load"
_LOAD = """# sqlite-load DATABASE TRANSACTIONS JOURNAL
{
    echo "PRAGMA synchronous = FULL; PRAGMA journal_mode = $3;
        CREATE TABLE IF NOT EXISTS chain (n INTEGER PRIMARY KEY, payload BLOB, link TEXT);
        INSERT OR IGNORE INTO chain VALUES (0, x'', '');"
    n=0
    while [ $n -lt $2 ]; do
        n=$((n + 1))
        echo "BEGIN IMMEDIATE;
            INSERT INTO chain (n, payload)
                SELECT max(n) + 1, randomblob(1 + abs(random() % 6000)) FROM chain;
            UPDATE chain SET link = hex(sha3(
                    (SELECT link FROM chain AS before WHERE before.n = chain.n - 1) || n || hex(payload), 256))
                WHERE n = (SELECT max(n) FROM chain);
            COMMIT;
            SELECT 'acknowledged ' || max(n) FROM chain;"
    done
} | sqlite3 -bail "$1"
"""
_CHECK = """
    PRAGMA integrity_check;
    SELECT count(*) FROM chain WHERE n > 0 AND link IS NOT hex(sha3(
        (SELECT link FROM chain AS before WHERE before.n = chain.n - 1) || n || hex(payload), 256));
    SELECT count(*) - 1 FROM chain;
    SELECT max(n) FROM chain;
"""


def sqlite_load(
    commands: Commands, database: str, transactions: int, *, journal: str = "DELETE", log: str = "", seconds: float = LOAD_S
) -> int:
    """Add transactions to a database, which is made when it is not there; return the number of the last acknowledged one.

    Args:
        commands: the guest.
        database: a file in it.
        transactions: how many.
        journal: SQLite's journal_mode, DELETE or WAL.
        log: a file for the lines of acknowledged transactions: it then runs in the background, and 0 is returned.
        seconds: how long it may take.

    Raises CommandError.
    """
    commands.put(_SCRIPT, _LOAD.encode())
    command = f"dash {_SCRIPT} {database} {transactions} {journal}"
    if log:
        commands.ok(f"({command}; echo ended $?) >{log} 2>&1 &")
        return 0
    return last_acknowledged(commands.ok(command, seconds))


def last_acknowledged(text: str) -> int:
    """Return the last transaction that text, of a console or a log, acknowledges; 0 when it has none."""
    numbers = re.findall(r"^acknowledged (\d+)\r?$", text, re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


def sqlite_check(commands: Commands, database: str, seconds: float = LOAD_S) -> int:
    """Check the database and its chain; return the number of its last transaction. Raises AssertionError."""
    integrity, broken, count, last = commands.ok(f'sqlite3 -bail {database} "{_CHECK}"', seconds).splitlines()
    assert integrity == "ok", integrity
    assert broken == "0", f"{broken} rows of {database} do not go with the row before"
    assert count == last, f"{database} has {count} transactions; the last one is number {last}"
    return int(last)
