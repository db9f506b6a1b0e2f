"""A kind of job of one's own, as an installation would add it: `levels` says what it is, `levels_work` does it."""
