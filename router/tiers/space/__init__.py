"""Hugging Face Spaces behind the tier port: the audio over HTTP, the call by gradio_client."""
