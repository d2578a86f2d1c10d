"""The modules of `allsource_auth.engine`."""
