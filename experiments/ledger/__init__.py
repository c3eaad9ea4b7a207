"""The ledger: every number and sentence that the paper printed, and what can be shown of it."""
