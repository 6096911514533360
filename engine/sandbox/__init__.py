"""A DigitalOcean API in a process, whose Droplets boot as local processes. Not a client of DigitalOcean."""
