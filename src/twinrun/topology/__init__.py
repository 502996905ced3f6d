"""What this machine and this cluster are: nodes, links, peer access. Never imports torch."""
