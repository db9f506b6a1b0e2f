"""The tiers: the port that each kind of backend speaks, the policy that chooses, the fleet that is watched."""
