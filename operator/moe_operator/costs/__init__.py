"""What a deployment's GPUs were held for, what came of it, and what that cost. Pure: times in seconds since the epoch.

`ledger` keeps the accounts, of `holdings`; `marks` remember them at moments, so that spans of time have figures;
`figures` makes ratios; `counters` are what metrics say of it; `budget` says what is spent; `price` whose price counts;
`text` is the ledger in the status.
"""
