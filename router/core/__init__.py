"""What every package of the router may use: settings, the table of errors, log, clock, threads and buffers."""
