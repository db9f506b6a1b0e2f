"""From a queued job to a verified master: chooses a backend, runs the attempt, decides what follows a fault."""
