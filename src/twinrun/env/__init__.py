"""Every variable that Twinrun reads, declared once, parsed strictly, with its provenance."""
