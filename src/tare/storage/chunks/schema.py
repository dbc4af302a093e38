"""The tables of packed files.

Where a layer's diff ID stands, there may be `upper:<snapshot id>`: a parked snapshot's own files, as if they were one.
They are never a base.

packed_files                    a layer's file whose blocks were given back: its bytes are `map` over its base
  file_id       INTEGER PRIMARY KEY
  mark          TEXT UNIQUE       what the file itself bears, by which readers find the row
  diff_id, path TEXT, BLOB        the layer and the clean relative path in its tree
  size, mtime_ns INTEGER          as the file shows them
  sha256        BLOB              of the whole content
  base_diff_id  TEXT              the layer whose file of the same path `map` goes on from; NULL: none
  map           BLOB              `chunks/maps.py`
  stored_bytes  INTEGER           what its own chunks took in packs when it was packed

chunks                          pieces of content, each once, however many files have it
  chunk_id      INTEGER PRIMARY KEY
  sha256        BLOB UNIQUE       of the plain bytes
  length        INTEGER           of the plain bytes; stored = length: not compressed
  pack, offset, stored INTEGER    where it lies: file <root>/packs/<pack>
  uses          INTEGER           how many entries of maps name it; changes with them in one transaction

dead_ranges                     what no chunk has any more; its blocks are to be given back
  pack, offset, stored INTEGER

successors                      layers whose files may take the place of older layers' ones; to be looked at
  diff_id       TEXT PRIMARY KEY
  older         TEXT              diff IDs, nearest first, separated by blanks

superseded                      files to be packed as soon as no container sees them
  diff_id, path TEXT, BLOB
  by_diff_id    TEXT              the layer with the version that came after it
  not_before_ns INTEGER           when at the earliest; NEVER: it was tried, and saved too little

parked                          snapshots of containers that can't run until somebody brings them back
  snapshot_id   TEXT PRIMARY KEY

chunk_store                     one row
  token         TEXT              marks files as packed by this store
"""

from __future__ import annotations

NEVER = 1 << 62

STEPS = (
    """
    CREATE TABLE packed_files (
        file_id INTEGER PRIMARY KEY AUTOINCREMENT,
        mark TEXT NOT NULL UNIQUE,
        diff_id TEXT NOT NULL,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        base_diff_id TEXT,
        map BLOB NOT NULL,
        stored_bytes INTEGER NOT NULL,
        UNIQUE (diff_id, path)
    );
    CREATE INDEX packed_files_base ON packed_files (base_diff_id, path);
    CREATE TABLE chunks (
        chunk_id INTEGER PRIMARY KEY AUTOINCREMENT,
        sha256 BLOB NOT NULL UNIQUE,
        length INTEGER NOT NULL,
        pack INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        uses INTEGER NOT NULL
    );
    CREATE TABLE dead_ranges (
        pack INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        stored INTEGER NOT NULL
    );
    CREATE TABLE successors (
        diff_id TEXT PRIMARY KEY,
        older TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE superseded (
        diff_id TEXT NOT NULL,
        path BLOB NOT NULL,
        by_diff_id TEXT NOT NULL,
        not_before_ns INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (diff_id, path)
    ) WITHOUT ROWID;
    CREATE TABLE chunk_store (token TEXT NOT NULL);
    INSERT INTO chunk_store (token) VALUES (lower(hex(randomblob(16))));
    """,
    "CREATE TABLE parked (snapshot_id TEXT PRIMARY KEY) WITHOUT ROWID",
)
