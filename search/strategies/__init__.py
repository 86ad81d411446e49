"""Search strategies, one file each, named after paper or method; found by listing this folder."""
