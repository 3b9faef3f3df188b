"""What may be wrong with data, one check a file; each is pure and knows neither files nor policies."""
