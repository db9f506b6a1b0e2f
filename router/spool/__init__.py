"""The spool: the only place where audio rests, encrypted, with keys that live in RAM alone."""
