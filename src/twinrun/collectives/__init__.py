"""All-reduce: one algorithm a file, one chooser, plans with reasons."""
