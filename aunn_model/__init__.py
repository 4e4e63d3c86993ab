"""The network: absolute addresses (int64) in, bytes (uint8) out. Knows no file and no record."""
