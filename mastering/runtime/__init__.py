"""How a process is set up: its sandbox, its log, its child processes, the threads of its linear algebra."""
