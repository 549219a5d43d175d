"""What runs inside vLLM's process: the drain, readiness and error-reporting side of a group's pod.

Mounted into the engine's container as the top-level package `moe_agent`; hence only relative imports, the
standard library and, behind guards, what vLLM's own process has. vLLM loads it by two of its extension
points: the plugin group `vllm.general_plugins` (every process) and `--middleware
moe_agent.middleware.AgentMiddleware` (API servers).
"""
