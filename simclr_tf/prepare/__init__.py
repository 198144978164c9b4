"""Makes of any folder of images a data set that trains at full speed: see docs/data.md.

    scan ──► parts, in several processes ──► duplicates ──► splits ──► shards, manifest
             (pictures, signatures)

Only `shards` needs TensorFlow, so the processes that read images start quickly.
"""
