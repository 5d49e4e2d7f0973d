"""The words and options of the command line; what commands do is in modules of their own."""
