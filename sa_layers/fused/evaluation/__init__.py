"""Evaluation by fused operators, channels last and in place, with frozen norms."""
