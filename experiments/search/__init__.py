"""Architecture search on a budget: candidates are ordinary runs of the store."""
