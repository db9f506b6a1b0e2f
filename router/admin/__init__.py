"""The operators' port: how the service is, and what to do with a backend. On loopback, beside the people's port."""
