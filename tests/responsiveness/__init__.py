"""The event loop stays responsive: no call of the library holds it for long.

Measured is the CPU time of the event loop's thread between two callbacks, so a busy machine does not matter.
"""
