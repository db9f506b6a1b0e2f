"""The people's port: JSON routes, pages, and what they share."""
