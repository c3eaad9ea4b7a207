"""Speed on this machine against what one would use instead; start at `experiments.bench.suite`."""
