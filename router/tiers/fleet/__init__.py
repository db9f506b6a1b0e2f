"""All backends and what is known of each: the catalogue, probing, modes set by operators."""
