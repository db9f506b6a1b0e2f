"""The managed worker: one render is one HTTP exchange, all of it in RAM. `python -m mastering.worker --help`.

The trip: `app` (routes) → `slots` (is there room) → `intake` (request frames → memory files) → `renderers` (a warm
process takes them over) → `child` (that process: the engine) → back through `app` as response frames.
"""
