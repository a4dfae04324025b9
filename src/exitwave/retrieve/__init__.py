"""Phase retrieval that needs no training."""
