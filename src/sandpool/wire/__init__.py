"""What goes over HTTP between a server and its clients: values and encodings, no transport."""
