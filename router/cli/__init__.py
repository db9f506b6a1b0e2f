"""The `router` command: one module a group of verbs."""
