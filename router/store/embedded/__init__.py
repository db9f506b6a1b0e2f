"""The store of one machine: SQLite on RAM-backed storage."""
