"""The demo's small mixed collection: files in real formats, made on the spot from a seed."""
