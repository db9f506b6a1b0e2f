"""Audio files in and out: containers, decoders, encoders, tags."""
