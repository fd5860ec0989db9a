"""What `labkit cluster` and `labkit must` do with a person's own files: words, images, tables and contact sheets."""
