"""The managed worker: one render is one HTTP exchange, all of it in RAM. `python -m mastering.worker --help`.

The trip: `app` (routes) → `slots` (is a render possible now) → `exchange` → `request` (its frames → memory files) →
`render_pool` (a warm process takes them over) → `child` (that process: the engine) → back through `exchange` as frames
of the `response`.
"""
