"""What this machine and this cluster are: nodes, links, peer access. Facts, each with how it was learnt."""
