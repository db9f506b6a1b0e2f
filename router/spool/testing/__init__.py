"""Blobs in memory that can do no more than the port asks; only tests use them."""
