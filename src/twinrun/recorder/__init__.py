"""Taps, the call boundary, filters, the writer, the run directory and its reader."""
