"""The corpus: records, addresses and the store that holds them. Knows neither torch nor any file format."""
