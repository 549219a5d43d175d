"""Models: what a Hugging Face `config.json` says about weights and caches, by architecture family."""
