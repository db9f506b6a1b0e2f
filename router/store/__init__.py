"""The store of jobs: one versioned document each, a queue with leases, and notifications of change."""
