"""The tables of the images room.

images                          one row per image; its layers are held by layer_roots row "image:<image_id>"
  image_id        TEXT PRIMARY KEY   digest of the OCI config (a blob in the content store)
  manifest_digest TEXT               digest of the OCI manifest (likewise)
  parent_id       TEXT or NULL       the image it was committed from; that one may be gone
  diff_ids        TEXT               bottom first, separated by blanks
  size_bytes      INTEGER            of all layers' files
  created_ns      INTEGER            as the config says
  last_tagged_ns  INTEGER            0: never

image_references                names of images
  name            TEXT               canonical, without tag: docker.io/library/busybox
  suffix          TEXT               ":latest" or "@sha256:…"
  image_id        TEXT               → images
  PRIMARY KEY (name, suffix)
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
)
