"""Pairing, assembling shards, verdicts, hints, the first divergence."""
