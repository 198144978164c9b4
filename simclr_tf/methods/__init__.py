"""Methods of training, one file each, on the interface of `base.Method`."""
