"""Put one run's tensors into the other, live or from a capture."""
