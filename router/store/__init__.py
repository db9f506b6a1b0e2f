"""The job records: one small versioned document a job, a queue with leases, and hints of change."""
