"""The promises, and what looks whether this installation keeps them: `router privacy selfcheck`."""
