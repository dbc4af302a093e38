"""The tables of the storage room.

    layers                          one row per layer that is whole and in its place
      diff_id      TEXT PRIMARY KEY   sha256 of the uncompressed tar
      size_bytes   INTEGER            of its regular files
      tar_bytes    INTEGER            of the uncompressed tar
      root_entry   INTEGER            1: the tar says what owner and mode the root directory has
      opaque_root  INTEGER            1: the layer hides all that is below it
      created_ns   INTEGER

    layer_roots                     what keeps layers alive; a layer that no row names is garbage
      holder       TEXT PRIMARY KEY   "image:<id>" …
      diff_ids     TEXT               bottom first, separated by blanks
      originals    TEXT               compressed layers that it refers to, likewise

    originals                       compressed layers as they came (originals.py)
      digest       TEXT PRIMARY KEY   sha256 of the compressed bytes
      diff_id      TEXT               the layer they hold
      size_bytes   INTEGER
      compression  TEXT               gzip, zstd …
      way          TEXT               JSON: how they are made of the layer's tar; "": they are kept in a file
      tried        INTEGER            1: a way was looked for
      created_ns   INTEGER

    leases                          what verbs under way hold (leases.py)
      lease_id     TEXT PRIMARY KEY
      holder       TEXT               boot id, pid, when it started: a process
      what         TEXT               the verb
      created_ns   INTEGER

    lease_holds                     (lease_id, digest): a layer's diff ID or an original's digest

    damage                          what a check found broken (damage.py)

    snapshots                       one row per container root; it keeps its layers alive like a layer root
      snapshot_id  TEXT PRIMARY KEY
      diff_ids     TEXT               as above
      volatile     INTEGER            1: thrown away at exit, never synced
      fresh        INTEGER            1: goes over to other layers; its directories are to be replaced by empty ones
      project_id   INTEGER            what its bytes are counted and limited by (quotas.py); 0: nothing

Directories, all 0700 (CVE-2021-41091):

    <root>/layers/<hex>/{tree/,recipe.zst,shadow/}     shadow/ only where entries of the tar displaced each other
    <snapshots>/<id>/{upper/,work/}
    <snapshots>/.skeleton/                             the mount points every container needs, below all layers
    <snapshots>/.nothing/                              empty directories, below the layers of a mounted image
    <snapshots>/.spare/                                empty snapshots made ahead
    <snapshots>/.trash/
    <root>/originals/<hex>                             compressed layers that can't be made again
    <root>/staging/<random>/                           being made; removed when the engine starts
    <root>/trash/<random>/                             being removed
"""

from __future__ import annotations

STEPS = (
    """
    CREATE TABLE layers (
        diff_id TEXT PRIMARY KEY,
        size_bytes INTEGER NOT NULL,
        tar_bytes INTEGER NOT NULL,
        root_entry INTEGER NOT NULL,
        opaque_root INTEGER NOT NULL,
        created_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE layer_roots (
        holder TEXT PRIMARY KEY,
        diff_ids TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE snapshots (
        snapshot_id TEXT PRIMARY KEY,
        diff_ids TEXT NOT NULL,
        volatile INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE snapshots ADD COLUMN fresh INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE originals (
        digest TEXT PRIMARY KEY,
        diff_id TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        compression TEXT NOT NULL,
        way TEXT NOT NULL,
        tried INTEGER NOT NULL,
        created_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX originals_by_layer ON originals (diff_id);
    ALTER TABLE layer_roots ADD COLUMN originals TEXT NOT NULL DEFAULT '';
    CREATE TABLE leases (
        lease_id TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        what TEXT NOT NULL,
        created_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE lease_holds (
        lease_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (lease_id, digest)
    ) WITHOUT ROWID;
    """,
    "CREATE TABLE damage (subject TEXT PRIMARY KEY, problem TEXT NOT NULL, found_ns INTEGER NOT NULL) WITHOUT ROWID",
    "ALTER TABLE snapshots ADD COLUMN project_id INTEGER NOT NULL DEFAULT 0",
)
