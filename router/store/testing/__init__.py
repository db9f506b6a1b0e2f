"""A store in this process's memory that can do no more than the port asks: the twin that tests use."""
