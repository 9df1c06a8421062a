"""Content-addressed blobs: large fields of snapshots, kept once under their digest."""
