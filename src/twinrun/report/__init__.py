"""A plain report model, rendered to the terminal, to JSON lines and to HTML."""
