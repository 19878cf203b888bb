"""Tests of the attention layers against their equations in a few lines of torch."""
