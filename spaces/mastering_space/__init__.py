"""The engine as a Hugging Face Space: a page for people, `/master` for gradio_client, and the audio beside Gradio.

A request's way: `request_guard` (who may, and which routes there are) → `routes` (audio in and out) → `jobs` (all of
it in RAM) → `rendering` (one killable process a render) → back as the events of `mastering.protocol.frames`. `server`
joins the parts.

It stands beside `mastering` in a Space's folder. It is no part of a package `spaces`: that name is Hugging Face's.
"""
