"""Tests of the build and of what it installs, in environments of their own."""
