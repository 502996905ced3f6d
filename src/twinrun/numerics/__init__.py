"""How far apart two tensors are: one-pass statistics, distances, floors, fingerprints."""
