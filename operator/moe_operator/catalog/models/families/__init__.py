"""Architecture families: each module reads the `config.json` of the architectures that it names."""
