"""How long the elements of lists have waited, from what successive scrapes see at the ends."""
