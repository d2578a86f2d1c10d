"""Tests of each store by itself: damaged files, failing servers, wrong options, closing."""
