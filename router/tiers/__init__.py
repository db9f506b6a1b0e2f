"""The tiers of machines that render: their common port, the policy that chooses, the fleet, and an adapter a kind."""
