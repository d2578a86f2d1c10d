"""The local Allsource. Many of these tests also run on real Cores (``-m core``), so that it stays equal to them."""
