"""The sandbox's model server: llama.cpp over the committed GGUF, started as `python -m engine.sandbox.llama`."""
