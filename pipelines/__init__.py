"""Files in, files out: the formats, and the flows that wire the corpus and the model into what a person runs."""
