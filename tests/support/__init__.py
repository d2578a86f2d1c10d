"""What the suites share.

* `targets`: the stores that the suites run on. * `clocks`: time that a test moves.
* `events`: raw events, and the whole log of a tenant. * `names`: the names of index streams, made independently of the package.
* `cores`: real Allsource Cores. * `proxy`: what goes wrong on the way to a server.
* `wrappers`: stores that count calls or contend. * `crowds`: many users at once. * `updates`: many writers of one user.
* `exploring`: how far explorations go. * `ownership`: what must always hold.
* `canaries`: secrets that must not show anywhere. * `bad_values`: what cannot be stored.
* `credentials`: what users prove themselves with, one of each kind. * `samples`: one entity of each of the ten kinds.
"""
