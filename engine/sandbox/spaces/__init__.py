"""Spaces, DigitalOcean's object storage: the S3 API of the sandbox and the keys to it. Not a CDN, not replicated."""
