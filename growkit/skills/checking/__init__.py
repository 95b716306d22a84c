"""What several skills on one model do to each other: measured from sketches, on data and through the network."""
