"""The mastering engine: no jobs, no users, no router. Works alone as a library and a command."""
