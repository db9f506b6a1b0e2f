"""The public port: JSON routes, HTML pages, and what both share."""
