"""The sandbox's own small model and the scripts that made it; not needed to run it, except for the GGUF itself."""
