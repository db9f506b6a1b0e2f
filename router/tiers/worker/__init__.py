"""The managed worker behind the tier port: one render is one HTTP exchange."""
