"""Data and models that come with labkit and work with no download; `recipe` holds the scripts that made them."""
