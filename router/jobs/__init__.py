"""The life of a job from its creation to its deletion, over the store and the spool."""
