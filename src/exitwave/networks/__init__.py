"""Networks: architectures, losses, the one training loop, weights."""
