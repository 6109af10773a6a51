"""The committer: decides every transaction and writes the result in one SQL transaction."""
