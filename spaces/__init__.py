"""Hugging Face Spaces: the same engine behind a Gradio page."""
