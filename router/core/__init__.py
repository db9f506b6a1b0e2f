"""What every room may use: settings, the table of errors, the log, the clock, threads and buffers."""
