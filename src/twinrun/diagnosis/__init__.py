"""Blame: which module, by how much, and the proof."""
