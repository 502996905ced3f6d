"""CUDA source to cached binary to callable."""
