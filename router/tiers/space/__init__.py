"""The adapters for Hugging Face Spaces: audio by plain HTTP, the call of the endpoint by gradio_client."""
