"""Test tools that several suites share.

Servers and stores:

* `targets`: the stores that the suites run on
* `local`: a local Allsource; `faults`: failures of a local Allsource; `api_client`: raw requests to a Core
* `cores`: real Allsource Cores; `proxy`: a TCP proxy that injects faults
* `wrappers`: stores that count calls, contend, fail or crash

Data:

* `events`: raw events, and the log of a tenant; `names`: names of index streams, computed independently of the package
* `samples`: one entity of each kind; `credentials`: the kinds that authenticate a user; `families`: all entities of a user
* `crowds`: many users; `sign_ups`: sign-ups as transactions; `updates`: concurrent updates of one user
* `bad_values`: values that are rejected; `canaries`: secrets that must not appear in logs, reprs and errors
* `operations`: one call of each operation

Checks:

* `ownership`: invariants of a store; `event_loop`: whether the event loop is free; `clocks`: a clock set by the test
* `exploring`: the extent of the protocol explorations
"""
