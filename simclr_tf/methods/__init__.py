"""What is trained: one file a method, on the interface of `base.Method`."""
