"""Search spaces, one file each; found by listing this folder (see search/README.md)."""
