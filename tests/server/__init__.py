"""The local Allsource. What it answers is asked of real Cores, too, so that it stays like them."""
