"""Open-loop clients of a served model while it is changed under them, and the report of what they met."""
