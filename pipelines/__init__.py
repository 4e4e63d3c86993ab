"""Files in, files out: the formats, and the flows that wire the corpus and the model into what a person runs."""

import os

# Threads that spin while they wait cost a factor of ten as soon as another process wants a core. Read by OpenMP when
# torch is loaded, which happens below this package only.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
