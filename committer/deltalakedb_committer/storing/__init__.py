"""The committer's SQL: what a batch of decisions writes, and what deciding one needs to be loaded."""
