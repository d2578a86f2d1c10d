"""The event store of one tenant on an Allsource server, over HTTP."""
