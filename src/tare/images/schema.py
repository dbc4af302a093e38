"""The tables of the images room.

images                          one row per image; its layers are held by layer_roots row "image:<image_id>"
  image_id        TEXT PRIMARY KEY   digest of the OCI config (a blob in the content store)
  manifest_digest TEXT               digest of the OCI manifest (likewise)
  parent_id       TEXT or NULL       the image it was committed from; that one may be gone
  previous_id     TEXT or NULL       the commit before this one of the same container; it may be gone
  diff_ids        TEXT               bottom first, separated by blanks
  size_bytes      INTEGER            of all layers' files
  created_ns      INTEGER            as the config says
  last_tagged_ns  INTEGER            0: never

image_references                names of images
  name            TEXT               canonical, without tag: docker.io/library/busybox
  suffix          TEXT               ":latest" or "@sha256:…"
  image_id        TEXT               → images
  target          TEXT               the manifest or index that the name stands for; "": the image's own manifest
  PRIMARY KEY (name, suffix)

image_documents                 documents that came with an image, beside its config and its own manifest
  image_id        TEXT               → images
  digest          TEXT
  kind            TEXT               manifest (of the same image), index, attached (attestations of an index)

index_members                   the images of an index that are here; one of them has the index in image_documents
  index_digest, manifest_digest TEXT
  image_id        TEXT               → images

tag_moves                       the reflog: where names were before; holds nothing alive
  number          INTEGER PRIMARY KEY
  name, suffix    TEXT               as above
  old_id, new_id  TEXT or NULL       NULL: the name was new; it was taken away
  old_target      TEXT               image_references.target of before
  time_ns         INTEGER
  why             TEXT               the verb: tag, commit, load …
"""

from __future__ import annotations

STEPS = (
    """
    CREATE TABLE images (
        image_id TEXT PRIMARY KEY,
        manifest_digest TEXT NOT NULL,
        parent_id TEXT,
        diff_ids TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        last_tagged_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX images_by_parent ON images (parent_id);
    CREATE TABLE image_references (
        name TEXT NOT NULL,
        suffix TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images (image_id),
        PRIMARY KEY (name, suffix)
    ) WITHOUT ROWID;
    CREATE INDEX image_references_by_image ON image_references (image_id);
    """,
    """
    CREATE TABLE tag_moves (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        suffix TEXT NOT NULL,
        old_id TEXT,
        new_id TEXT,
        time_ns INTEGER NOT NULL,
        why TEXT NOT NULL
    );
    CREATE INDEX tag_moves_by_name ON tag_moves (name, suffix);
    """,
    "ALTER TABLE images ADD COLUMN previous_id TEXT",
    """
    ALTER TABLE image_references ADD COLUMN target TEXT NOT NULL DEFAULT '';
    CREATE TABLE image_documents (
        image_id TEXT NOT NULL REFERENCES images (image_id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        kind TEXT NOT NULL,
        PRIMARY KEY (image_id, digest)
    ) WITHOUT ROWID;
    CREATE TABLE index_members (
        index_digest TEXT NOT NULL,
        manifest_digest TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images (image_id) ON DELETE CASCADE,
        PRIMARY KEY (index_digest, manifest_digest)
    ) WITHOUT ROWID;
    CREATE INDEX index_members_by_image ON index_members (image_id);
    """,
    "ALTER TABLE tag_moves ADD COLUMN old_target TEXT NOT NULL DEFAULT ''",
)
