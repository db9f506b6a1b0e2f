"""Signal processing, one idea a file: pure functions over float32 (channels, frames)."""
