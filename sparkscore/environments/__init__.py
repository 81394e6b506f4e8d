"""Environments of their own for packages whose libraries are not those of this Python."""
