"""The operators' port, on loopback: the service's status as page, API and metrics, and the mode of each backend."""
