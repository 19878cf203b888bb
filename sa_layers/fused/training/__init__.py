"""Training by fused operators: forward and backward passes that keep no tensor of the size of all footprints."""
