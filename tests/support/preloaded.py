"""What the server imports from which `program` forks."""

from simclr_tf import jobs

jobs.load()
