"""Hypotheses that may explain a difference, one a file; each is tested down to the floor."""
