"""Tests of the networks, also against the official network written in plain torch functions."""
