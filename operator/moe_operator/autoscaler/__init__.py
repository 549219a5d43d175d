"""Decides how many groups a deployment shall have, from observations alone. Pure; decisions have typed reasons."""
