"""Where the rows of a stream are published once they are in its score table."""
