"""The native API, below `/v1`: each module decodes one noun's calls, serves them, and encodes."""
