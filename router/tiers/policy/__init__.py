"""Which backend gets a job and what follows a fault: pure functions and tables, time passed in."""
