"""One file a schema revision; a released one never changes."""
