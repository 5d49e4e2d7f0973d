"""What makes sandboxes; nothing above knows which of them did."""
