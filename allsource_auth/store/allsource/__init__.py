"""The events of one tenant in an Allsource, over HTTP."""
