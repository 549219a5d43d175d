"""Policies of scaling judged by another simulator of engines: that of NVIDIA's Dynamo, written in Rust by others."""
