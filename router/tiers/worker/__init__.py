"""The adapter for managed workers: one render is one HTTP exchange."""
