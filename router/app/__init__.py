"""Joins the parts: the only package that imports all others, and the one that acts on the process at a start."""
