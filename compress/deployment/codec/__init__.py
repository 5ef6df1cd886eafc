"""Writing coded files."""
